"""rsup evaluate as a user runs it: a table for people, JSON for machines, one sentence for what cannot be done."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate") / "images"
    folder.mkdir()
    for k in range(12):
        coarse = np.random.default_rng(k).integers(40, 216, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"image{k:02}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG no more")
    return folder


def test_json_and_page(rsup, images, tmp_path, tiny_student):
    command = ["evaluate", tiny_student(4), "--data", images, "--scale", 4, "--degradation", "sentinel2"]
    done = rsup(*command, "--all", "--limit", 2, "-o", tmp_path / "out", "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    keys = {"psnr_y", "ssim_y", "niqe", "spectrum_rmse", "sam_deg", "ms_per_tile", "lpips", "bicubic", "notes"}
    assert keys <= set(result)
    assert result["images"] == 2 and result["scale"] == 4 and result["model"] == "tiny-x4"
    assert [entry["path"].rsplit("/")[-1] for entry in result["skipped"]] == ["broken.png"]
    assert result["lpips"] is None or result["lpips"] > 0
    assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".html"]
    assert "evaluate: 2/2 images" in done.stderr


def test_table(rsup, images):
    done = rsup("evaluate", "lanczos", "--data", images, "--scale", 8, "--degradation", "published", "--limit", 1)
    assert done.returncode == 0, done.stderr
    for word in ("lanczos", "bicubic", "truth", "psnr_y", "1 images", "1 skipped", "broken.png"):
        assert word in done.stdout


def test_bad_input_is_one_sentence(rsup, images, tmp_path):
    cases = (
        (["bicubic", "--data", images, "--scale", 4, "--degradation", "blur"], 2, "give published or sentinel2"),
        (["bicubic", "--data", images, "--scale", 4, "--degradation", "published", "--gsd", 0], 2, "above 0"),
        (["bicubic", "--data", images, "--scale", 4, "--degradation", "published", "--bands", "nir,red"], 2, "three"),
        (["bicubic", "--data", tmp_path / "none", "--scale", 4, "--degradation", "published"], 8, "none"),
    )
    for arguments, code, says in cases:
        done = rsup("evaluate", *arguments)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert says in done.stderr and "Traceback" not in done.stderr
        assert done.stderr.count("\n") == 1
