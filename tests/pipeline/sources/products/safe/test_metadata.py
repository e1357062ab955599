"""What MTD_MSIL1C.xml and MTD_MSIL2A.xml say, those of real products and made ones."""

from datetime import UTC, datetime
from typing import Any

import pytest
from places import SHARED
from safes import metadata

from rsup.pipeline.sources.products.safe.metadata import BANDS, METADATA, TILE_METADATA, read_metadata

REAL = SHARED / "data/sentinel2/metadata/stactools"
real = pytest.mark.skipif(not REAL.exists(), reason="the real metadata are not at hand")


@real
@pytest.mark.parametrize(
    ("product", "level", "baseline", "offset", "cloud", "sensed"),
    [
        ("S2A_MSIL1C_20210908T042701_N0301_R133_T46RER_20210908T070248", "1C", "03.01", 0, 88.2972, "2021-09-08T04:27"),
        (
            "S2A_MSIL2A_20230821T221941_N0509_R029_T01KAB_20230822T021825",
            "2A",
            "05.09",
            -1000,
            59.0507,
            "2023-08-21T22:19",
        ),
        (
            "S2B_MSIL2A_20220413T150759_N0400_R025_T33XWJ_20220414T082126",
            "2A",
            "04.00",
            -1000,
            None,
            "2022-04-13T15:07",
        ),
    ],
)
def test_real_metadata(product: str, level: str, baseline: str, offset: int, cloud: float | None, sensed: str) -> None:
    name = f"MTD_MSIL{level}.xml"
    found = read_metadata(name, (REAL / f"{product}.SAFE" / name).read_bytes())
    assert (found.level, found.product, found.quantification) == (level, product, 10_000)
    assert found.sensed.replace(second=0, microsecond=0) == datetime.fromisoformat(sensed).replace(tzinfo=UTC)
    assert found.offsets == dict.fromkeys(BANDS, offset) and found.states_offsets is (offset != 0)
    assert cloud is None or found.cloud == pytest.approx(cloud, abs=1e-4)
    assert found.properties["s2:processing_baseline"] == baseline
    ((granule, strip),) = found.granules.items()
    assert product.split("_")[5] in granule and f"_N{baseline}" in strip


@real
def test_an_offset_that_no_product_has_is_read_as_it_is() -> None:
    folder = REAL / "S2A_OPER_MSI_L2A_TL_VGS1_20220401T110010_A035382_T34LBQ"
    found = read_metadata("MTD_MSIL2A.xml", (folder / "product_metadata.xml").read_bytes())
    assert set(found.offsets.values()) == {-7000}


def test_names_of_old_and_new_products() -> None:
    old = "S2A_OPER_MTD_SAFL1C_PDMC_20160317T161448_R022_V20160317T101020_20160317T101020.xml"
    for name in ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml", old, old.replace("OPER", "USER").replace("1C", "2A")):
        assert METADATA.fullmatch(name) and not TILE_METADATA.fullmatch(name)
    for name in ("MTD_TL.xml", "S2A_OPER_MTD_L1C_TL_SGS__20160317T153450_A003840_T32TQM.xml"):
        assert TILE_METADATA.fullmatch(name) and not METADATA.fullmatch(name)
    for name in ("MTD_DS.xml", "INSPIRE.xml", "MTD_MSIL3A.xml", "MTD_MSIL2A.xml.bak"):
        assert not METADATA.fullmatch(name) and not TILE_METADATA.fullmatch(name)


def test_offsets_are_of_their_bands_and_sen2cor_s_old_words_are_known() -> None:
    found = read_metadata("m", metadata("a", offset={band: -band for band in range(13)}).encode())
    assert found.offsets["B04"] == -3 and found.offsets["B8A"] == -8 and found.offsets["B11"] == -11
    old = metadata("a", offset=None).replace("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE")
    found = read_metadata("m", old.replace("PRODUCT_URI", "PRODUCT_URI_2A").encode())
    assert found.quantification == 10_000 and found.product == "a" and not found.states_offsets


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("10000<", "0<"), "'0', which makes no reflectance"),
        (("10000<", "nan<"), "'nan', which makes no reflectance"),
        (("10000<", "ten<"), "'ten', which makes no reflectance"),
        (("BOA_QUANTIFICATION", "NO_QUANTIFICATION"), "states no BOA_QUANTIFICATION_VALUE"),
        (("<BOA_QUANT", "<BOA_QUANTIFICATION_VALUE>5000</BOA_QUANTIFICATION_VALUE><BOA_QUANT"), "states two BOA_QUANT"),
        (('band_id="3">-1000', 'band_id="3">-1e3'), "of band 3: -1e3 cannot be understood"),
        (('band_id="3"', 'band_id="33"'), "of band 33: -1000 cannot be understood"),
        (('band_id="3">-1000', 'band_id="2">0'), "two BOA_ADD_OFFSET of B03"),
        (('<BOA_ADD_OFFSET band_id="3">-1000</BOA_ADD_OFFSET>', ""), "and not of B04"),
        (("2024-06-10T10:05:59.024Z", "yesterday"), "does not say when"),
        (("Level-2A_User_Product", "Level-3A_User_Product"), "Level-3A_User_Product, not the metadata"),
    ],
)
def test_what_cannot_be_used_is_told(change: tuple[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_metadata("m", metadata("a").replace(*change).encode())


@pytest.mark.parametrize(("text", "cloud"), [("5.25", 5.25), ("-1", None), ("much", None), ("NaN", None)])
def test_cloud_that_nobody_measured_is_unknown(text: str, cloud: Any) -> None:
    assert read_metadata("m", metadata("a").replace("5.25", text).encode()).cloud == cloud
