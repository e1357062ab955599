"""evaluate: against its own parts done by hand, on a folder of made images; and on real images where they are."""

import base64
import hashlib
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from places import SHARED
from scipy.ndimage import gaussian_filter

from rsup.models.base.errors import ArgumentError, DataError, ModelError
from rsup.models.base.radiometry import WHITE, from_network, to_network
from rsup.models.evaluate import EvaluateRequest, evaluate, table
from rsup.models.metrics import image as metrics
from rsup.models.metrics.judge import FIGURES, Judge
from rsup.models.metrics.niqe import FEATURES
from rsup.models.networks.interpolation import interpolator

NAIP = SHARED / "data/hr/naip_ca_0.6m"
PARAMETERS = SHARED / "data/weights/metrics/niqe_pris_params.npz"


RGB = ("red", "green", "blue")


@pytest.fixture(autouse=True)
def no_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("rsup.models.metrics.learned.CLIP", str(tmp_path / "clip"))


@pytest.fixture
def folder(tmp_path):
    """Forty small images: enough that some are for validation, whatever the hash says."""
    path = tmp_path / "images"
    path.mkdir()
    for k in range(40):
        noise = np.random.default_rng(k).normal(size=(96, 80, 3))
        image = sum(gaussian_filter(noise, (s, s, 0)) * s for s in (1, 3))
        Image.fromarray(np.uint8((128 + 40 * image / image.std()).clip(0, 255))).save(path / f"image{k:02}.png")
    return path


@pytest.fixture
def parameters(tmp_path):
    path = tmp_path / "niqe.npz"
    np.savez(path, mu_pris_param=np.ones((1, FEATURES)), cov_pris_param=np.eye(FEATURES))
    return path


def network_image(seed, side=200):
    noise = np.random.default_rng(seed).normal(size=(3, side, side))
    image = gaussian_filter(noise, (0, 2, 2))
    return torch.from_numpy((image / abs(image).max()).astype(np.float32))


def test_judge_of_photographs(parameters):
    """A photograph's value v is brightness (v + 1) / 2, and DN of a reflectance of WHITE at 1."""
    judge = Judge(4, "photograph", RGB, torch.device("cpu"), parameters)
    high = network_image(0)
    image = high * 0.9
    low = torch.nn.functional.avg_pool2d(image, 4)
    found = judge(image, high, low, "made")
    assert tuple(found) == FIGURES
    seen, true = ((each.double() + 1) / 2 for each in (image, high))
    torch.testing.assert_close(judge.shown(high), true, rtol=0, atol=1e-9)
    saved, wanted = metrics.eight_bits(seen), metrics.eight_bits(true)
    assert found["psnr_y"] == metrics.psnr_y(saved, wanted, 4)
    assert found["ssim_y"] == metrics.ssim_y(saved, wanted, 4)
    assert found["reflectance_error"] == pytest.approx(float((seen - true).abs().mean()) * WHITE, rel=1e-6)
    assert found["block_mean_dn"] == pytest.approx(0, abs=1e-3)
    assert found["shift_px"] < 0.01
    assert found["niqe"] is not None and found["spectrum_rmse"] == pytest.approx(2 * math.log(1 / 0.9), rel=1e-2)
    missing = ["psnr_4", "ndvi_rmse", "lpips", "dists", "musiq", "maniqa", "clip_iqa"]
    # The Frechet distance is one of all images.
    assert [name for name in FIGURES if found[name] is None] == [*missing, "frechet_lite1"]
    assert set(judge.notes) == set(missing)


def test_judge_of_reflectance():
    """Stored numbers come back through the map that every scene goes through."""
    judge = Judge(4, "reflectance", RGB, torch.device("cpu"))
    dn = torch.randint(1100, 5200, (3, 64, 64), generator=torch.manual_seed(1)).double()
    high, image = to_network(dn), to_network(dn + 100)
    torch.testing.assert_close(judge.numbers(high), dn, rtol=0, atol=0.5)
    torch.testing.assert_close(judge.shown(high), (dn * 1e-4 - 0.1) / WHITE, rtol=0, atol=2e-4)
    low = to_network(torch.nn.functional.avg_pool2d(dn, 4))
    found = judge(image, high, low, "made")
    assert found["reflectance_error"] == pytest.approx(0.01, abs=1e-5)
    assert found["block_mean_dn"] == pytest.approx(100, abs=0.5)
    assert found["niqe"] is None and "--niqe-parameters" in judge.notes["niqe"]


def test_judge_of_four_bands():
    """What is of colours is of the first three; NDVI is of reflectances."""
    judge = Judge(4, "reflectance", (*RGB, "nir"), torch.device("cpu"))
    dn = torch.randint(1500, 5200, (4, 64, 64), generator=torch.manual_seed(1)).double()
    wrong = dn.clone()
    wrong[3] += 50
    low = to_network(torch.nn.functional.avg_pool2d(dn, 4))
    found = judge(to_network(wrong), to_network(dn), low, "made")
    assert found["psnr_y"] == math.inf and found["psnr_4"] == pytest.approx(20 * math.log10(WHITE / 0.005), abs=0.5)
    red, nir, off = (each * 1e-4 - 0.1 for each in (dn[0], dn[3], wrong[3]))
    error = (off - red) / (off + red) - (nir - red) / (nir + red)
    assert found["ndvi_rmse"] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-2)
    assert not {"psnr_4", "ndvi_rmse"} & set(judge.notes)


def test_a_model_is_measured_as_its_product_is_where_a_sensor_degrades(folder):
    """Beside it bicubic as it is, and bicubic through the same step, which another model of the same image shares."""
    result = evaluate(EvaluateRequest("lanczos", folder, 4, "sentinel2", limit=3))
    assert result["classical"]["psnr_y"] > result["bicubic"]["psnr_y"] + 0.5
    again = evaluate(EvaluateRequest("bicubic", folder, 4, "sentinel2", limit=3))
    for name in FIGURES:
        assert again["classical"][name] == result["classical"][name]
    assert again["psnr_y"] == result["bicubic"]["psnr_y"]
    assert "classical" in table(result)
    assert "classical" not in evaluate(EvaluateRequest("lanczos", folder, 4, "published", limit=1))


@pytest.mark.parametrize("degradation", ["published", "sentinel2"])
def test_bicubic_is_judged_once(folder, degradation, tmp_path):
    calls = []
    request = EvaluateRequest("bicubic", folder, 4, degradation, page=tmp_path / "out")
    result = evaluate(request, lambda done, total: calls.append((done, total)))
    assert "bicubic" not in result and result["model"] == "bicubic" and result["parameters"] == 0
    assert result["radiometry"] == ("photograph" if degradation == "published" else "reflectance")
    assert 0 < result["images"] < 40 and result["skipped"] == []
    assert calls == [(k + 1, result["images"]) for k in range(result["images"])]
    assert 15 < result["psnr_y"] < 50 and 0 < result["ssim_y"] < 1 and result["ms_per_tile"] > 0
    assert result["niqe"] is None and result["niqe_truth"] is None
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    page = Path(result["page"]).read_text(encoding="utf-8")
    assert (
        page.count("<figure>") == (4 if degradation == "sentinel2" else 3) * min(8, result["images"])
        and "data:image/png" in page
    )
    assert "psnr_y" in table(result) and "download" in table(result)
    again = evaluate(EvaluateRequest("bicubic", folder, 4, degradation))
    for key in set(result) - {"ms_per_tile", "page", "classical"}:
        assert again[key] == result[key], key


def test_a_student_beside_bicubic(folder, save_student):
    path = save_student(8)
    result = evaluate(EvaluateRequest(str(path), folder, 8, "published", limit=2))
    alone = evaluate(EvaluateRequest("bicubic", folder, 8, "published", limit=2))
    assert result["images"] == 2 and result["model"] == "tiny-x8"
    assert set(result["bicubic"]) == {*FIGURES, "ms_per_tile"}
    for name in FIGURES:
        assert result["bicubic"][name] == alone[name]
    assert result["psnr_y"] != alone["psnr_y"] and result["parameters"] > 0
    assert result["sha256"] != alone["sha256"]
    assert "bicubic" in table(result) and "tiny-x8" in table(result)


def test_others_are_measured_on_the_same_pairs(folder, tmp_path):
    """What repeats bicubic's numbers has bicubic's figures, and what is perfect in one channel is so in that alone."""
    request = EvaluateRequest("lanczos", folder, 4, "sentinel2", limit=2, page=tmp_path)
    given = []

    def copy(low):
        given.append(low.shape)
        return interpolator("bicubic", 4)(low)

    alone, result = evaluate(request), evaluate(request, beside={"copy": copy})
    found = result.pop("beside")["copy"]
    for name in FIGURES:
        assert found[name] == result["bicubic"][name] != result[name] or found[name] is None
    assert found["ms_per_tile"] > 0 and given[:2] == [(1, 3, 24, 20)] * 2 and given[-1] == (1, 3, 128, 128)
    for key in set(alone) - {"ms_per_tile", "bicubic", "classical", "page"}:
        assert alone[key] == result[key], key
    assert "copy" in table({**result, "beside": {"copy": found}})
    assert "<figcaption>copy</figcaption>" in Path(result["page"]).read_text(encoding="utf-8")


def test_other_bands_are_imaged_as_themselves(tmp_path):
    """Red and green keep their figures, but for the noise, in other channels; flat near infrared is easily restored."""
    import rasterio
    from rasterio.transform import from_origin

    path = tmp_path / "images"
    path.mkdir()
    noise = np.random.default_rng(3).normal(size=(4, 96, 96))
    data = np.uint8((128 + 600 * gaussian_filter(noise, (0, 3, 3))).clip(1, 255))
    data[3] = 150
    shape = {"count": 4, "height": 96, "width": 96, "dtype": "uint8", "driver": "GTiff"}
    with rasterio.open(path / "four.tif", "w", **shape, transform=from_origin(0, 96, 1, 1)) as file:
        file.write(data)
    request = EvaluateRequest("bicubic", path, 4, "sentinel2")
    plain = evaluate(request)
    false = evaluate(replace(request, bands=("NIR", "red", "green")))
    assert plain["bands"] == ["red", "green", "blue"] and false["bands"] == ["NIR", "red", "green"]
    for band, channel in (("psnr_1", "psnr_2"), ("psnr_2", "psnr_3")):
        assert false[channel] == pytest.approx(plain[band], abs=0.5)
    assert false["psnr_1"] > max(false["psnr_2"], false["psnr_3"]) + 10
    with pytest.raises(DataError, match="swir16 is not known"):
        evaluate(replace(request, bands=("swir16", "red", "green")))


def test_the_seed_decides_the_degradation(folder):
    def psnr(seed):
        return evaluate(EvaluateRequest("bicubic", folder, 4, "published", limit=2, seed=seed))["psnr_y"]

    assert psnr(1) == psnr(1) != psnr(2)


def test_every_image_or_those_of_the_split(folder):
    split = evaluate(EvaluateRequest("bicubic", folder, 8, "sentinel2"))
    every = evaluate(EvaluateRequest("bicubic", folder, 8, "sentinel2", every=True))
    assert split["images"] < every["images"] == 40
    assert "images" not in split["notes"] and "images" not in every["notes"]
    for path in sorted(folder.iterdir()):
        if site_share(path.stem) < 0.1:
            path.unlink()
    rest = evaluate(EvaluateRequest("bicubic", folder, 8, "sentinel2"))
    assert rest["images"] == 40 - split["images"] and "validation split" in rest["notes"]["images"]


def test_numbers_of_more_than_8_bits_need_white_and_fine_pixels_can_be_averaged(tmp_path):
    """160 x 128 pixels of 0.5 m, whose number 4000 is white, measured at 1 m: half as many."""
    import rasterio
    from rasterio.transform import from_origin

    folder = tmp_path / "deep"
    folder.mkdir()
    data = np.random.default_rng(2).integers(0, 4000, (3, 160, 128)).astype(np.uint16)
    shape = {"count": 3, "height": 160, "width": 128, "dtype": "uint16", "driver": "GTiff"}
    place = {"crs": "EPSG:32631", "transform": from_origin(5e5, 5e6, 0.5, 0.5)}
    with rasterio.open(folder / "deep.tif", "w", **shape, **place) as file:
        file.write(data)
    with pytest.raises(DataError, match="white"):
        evaluate(EvaluateRequest("bicubic", folder, 4, "sentinel2"))
    request = EvaluateRequest("bicubic", folder, 4, "sentinel2", white=4000, gsd=1.0, page=tmp_path)
    result = evaluate(request)
    assert result["images"] == 1
    uri = Path(result["page"]).read_text(encoding="utf-8").rsplit("base64,", 1)[1].split('"', 1)[0]
    truth = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))))
    means = data.reshape(3, 80, 2, 64, 2).mean((2, 4)).transpose(1, 2, 0) / 4000 * 255
    np.testing.assert_allclose(truth, means, atol=1)


def test_reflectances_whose_white_is_whites_are_seen_as_they_are(tmp_path):
    """Dimmer than they are, the sensor's noise would be stronger beside them than it is in scenes."""
    import rasterio
    from rasterio.transform import from_origin

    folder = tmp_path / "scenes"
    folder.mkdir()
    numbers = np.random.default_rng(4).normal([[[2500]], [[1800]], [[1300]]], 100, (3, 96, 96)).astype(np.uint16)
    shape = {"count": 3, "height": 96, "width": 96, "dtype": "uint16", "driver": "GTiff"}
    place = {"crs": "EPSG:32631", "transform": from_origin(5e5, 5e6, 10, 10)}
    with rasterio.open(folder / "s.tif", "w", **shape, **place) as file:
        file.write(numbers)
        file.scales, file.offsets = (1e-4,) * 3, (-0.1,) * 3
    seen, enlarge = [], interpolator("bicubic", 4)

    def watching(low):
        seen.append(from_network(low))
        return enlarge(low)

    evaluate(EvaluateRequest("bicubic", folder, 4, "sentinel2", white=WHITE, every=True), beside={"watching": watching})
    np.testing.assert_allclose(seen[0].mean((0, 2, 3)), numbers.mean((1, 2)), rtol=0.005)


def site_share(name):
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def test_what_cannot_be_used_is_named_and_replaced(folder):
    """A truncated file fails only when its pixels are read; a file of no image at once."""
    whole = evaluate(EvaluateRequest("bicubic", folder, 4, "published"))
    (folder / "text.png").write_text("no image")
    victim = next(path for path in sorted(folder.iterdir()) if site_share(path.stem) < 0.1)
    Image.open(victim).save(victim.with_suffix(".tif"))
    victim.unlink()
    victim = victim.with_suffix(".tif")
    victim.write_bytes(victim.read_bytes()[:3000])
    result = evaluate(EvaluateRequest("bicubic", folder, 4, "published"))
    assert result["images"] == whole["images"] - 1
    assert {Path(each["path"]).name for each in result["skipped"]} == {"text.png", victim.name}
    assert all(each["reason"] for each in result["skipped"])


def test_what_cannot_be_read_is_said(folder, tmp_path):
    with pytest.raises(DataError):
        evaluate(EvaluateRequest("bicubic", tmp_path / "absent", 4, "published"))
    with pytest.raises(ModelError, match="no model or file"):
        evaluate(EvaluateRequest("nothing", folder, 4, "published"))
    with pytest.raises(ModelError, match="scale must be"):
        evaluate(EvaluateRequest("bicubic", folder, 3, "published"))
    with pytest.raises(ArgumentError, match="--device onnx: measure on auto"):
        evaluate(EvaluateRequest("bicubic", folder, 4, "published", device="onnx"))
    with pytest.raises(ModelError, match=r"absent\.npz"):
        evaluate(EvaluateRequest("bicubic", folder, 4, "published", niqe_parameters=tmp_path / "absent.npz"))


@pytest.mark.skipif(not NAIP.exists(), reason="the real images are not here")
@pytest.mark.parametrize(("degradation", "least", "most"), [("published", 20, 28), ("sentinel2", 20, 34)])
def test_real_images_have_plausible_figures(degradation, least, most):
    request = EvaluateRequest("bicubic", NAIP, 4, degradation, limit=4, niqe_parameters=PARAMETERS)
    result = evaluate(request)
    assert result["images"] == 4
    assert least < result["psnr_y"] < most and 0.3 < result["ssim_y"] < 0.95
    assert 0.1 < result["sam_deg"] < 8 and 0 < result["reflectance_error"] < 0.06
    assert result["shift_px"] < 1 and result["block_mean_dn"] < 60
    if degradation == "published":
        assert 2 < result["niqe_truth"] < 12 and result["niqe"] > result["niqe_truth"]
