"""What a file says of itself is enough: docs/export.md's Python, which knows rsup by it alone, does what rsup does."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from places import ROOT

from rsup.models.base.radiometry import MAP, from_network, to_network
from rsup.models.consistency import SensorConsistency
from rsup.models.export import export_model
from rsup.models.graphs.statement import statement
from rsup.models.sensors import DEFAULT
from rsup.models.upscaler import FLOAT32, descriptor_of, load

PYTHON = re.findall(r"```python\n(.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compact-x4", "compact-x8"])
def test_the_documents_python_gives_the_tile_that_rsup_gives(name, tmp_path, monkeypatch, real_scene):
    monkeypatch.chdir(tmp_path)
    scale = int(name[-1])
    model = load(name, scale, arithmetic=FLOAT32)
    of = model.descriptor
    dn = real_scene.read(of.bands, real_scene.aoi)[:, 300 : 300 + of.tile, 200 : 200 + of.tile]
    assert dn.all()
    np.save("tile.npy", dn)
    export_model(name, "onnx", Path("compact-x4.onnx"))  # the name that the document has
    ran = {}
    for part in PYTHON:
        exec(part, ran)

    lr = torch.from_numpy(dn.astype(np.float32))
    alone = from_network(model(to_network(lr)[None])[0])
    np.testing.assert_allclose(ran["upscaled"], alone, rtol=0, atol=0.05)
    responses = {band: DEFAULT.response(band) for band in of.bands}
    expected = SensorConsistency(responses).tiles(alone[None], lr[None], scale, of.bands, None)[0]
    moved = (expected - alone).abs().mean()
    assert moved > 5 and abs(ran["held"] - expected.numpy()).max() < 0.2


def test_the_radiometry_is_written_as_formulas_that_can_be_evaluated():
    about = statement(descriptor_of("compact-x4", 4))["radiometry"]
    names = {"min": np.minimum, "max": np.maximum, "log1p": np.log1p, "expm1": np.expm1, **about}
    numbers = np.array([1, 900, 3999, 4000, 4001, 12_000, 65_535], np.float64)
    r = eval(about["reflectance"].removeprefix("r = "), {"number": numbers, **names})
    v = eval(about["to_network"].removeprefix("v = "), {"r": r, **names})
    np.testing.assert_allclose(v, to_network(numbers.astype(np.float32)), rtol=0, atol=1e-6)
    back = eval(about["from_network"].removeprefix("r = "), {"v": v, **names})
    np.testing.assert_allclose((back - about["offset"]) / about["scale"], numbers, rtol=1e-9)
    assert set(MAP) < set(about)


def test_licence_digest_and_tiles_are_the_descriptor_s():
    model = descriptor_of("compact-x8", 8)
    about = statement(model)
    assert (about["licence"], about["sha256"]) == (model.licence, model.sha256)
    assert about["input"] == {"tile": {"shape": [1, 4, 160, 160], "means": "network values in [-1, 1]"}}
    assert about["outputs"].keys() == {"image", "uncertainty"}
    assert about["outputs"]["image"]["shape"] == [1, 4, 1280, 1280]
    assert about["consistency"]["responses"].keys() == {"red", "green", "blue", "nir"}
