"""What is said of bands: names that eo knows, wavelengths, and nothing that nobody knows."""

from rsup.models.sensors import DEFAULT
from rsup.pipeline.mosaics.stac.bands import eo_bands, measured


def test_every_band_has_the_name_that_eo_gives_it() -> None:
    names = [band.name for band in DEFAULT.bands]
    described = measured(names, DEFAULT, 2.5, {})
    assert [band["eo:common_name"] for band in described] == [
        "blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "swir16", "swir22",
    ]  # fmt: skip
    old = eo_bands(described)
    assert [band["name"] for band in old] == names
    assert [band["common_name"] for band in old][3:6] == ["rededge"] * 3  # eo 1.1 knows no parts of it
    assert all(0.4 < band["center_wavelength"] < 2.3 and band["full_width_half_max"] < 0.2 for band in old)


def test_a_band_of_nobody_s_has_its_own_name_alone() -> None:
    (band,) = measured(["pan"], DEFAULT, 2.5, {})
    assert not [key for key in band if key.startswith("eo:")] and "statistics" not in band
    assert eo_bands([band]) == [{"name": "pan"}]
