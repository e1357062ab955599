"""SAFE products made from arrays: real JPEG 2000 under ESA's names, with metadata of ESA's shape."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from rsup.pipeline.lattice import Window

GROUND = Window(-510_000, 50_000, 128, 192)
"""Of EPSG:32633, where nothing else is said; a multiple of 60 m."""
NUMBERS = {
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "nir": "B08",
    "rededge1": "B05",
    "nir08": "B8A",
    "swir16": "B11",
}
COARSE = {"rededge1", "nir08", "swir16", "scl"}
"""Of 20 m."""


def write_jp2(
    path: Path, data: NDArray[Any], window: Window, crs: str = "EPSG:32633", gsd: int = 10, tile: int = 64
) -> None:
    """Lossless, in tiles, georeferenced as ESA's are: by GML in the file. `window` in 10 m pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    west, _, _, north = window.bounds
    profile: dict[str, Any] = {
        "driver": "JP2OpenJPEG",
        "height": data.shape[0],
        "width": data.shape[1],
        "count": 1,
        "dtype": data.dtype,
        "crs": crs,
        "transform": rasterio.Affine(gsd, 0, west, 0, -gsd, north),
        "QUALITY": 100,
        "REVERSIBLE": "YES",
        "BLOCKXSIZE": tile,
        "BLOCKYSIZE": tile,
        "RESOLUTIONS": 3,
    }
    with rasterio.open(path, "w", **profile) as sink:
        sink.write(data, 1)


def metadata(
    name: str,
    *,
    level: str = "2A",
    baseline: str = "05.10",
    offset: int | dict[int, int] | None = -1000,
    quantification: int = 10_000,
    granule: str = "",
    strip: str = "",
    sensed: str = "2024-06-10T10:05:59.024Z",
    extra: str = "",
) -> str:
    """MTD_MSIL2A.xml, or of level 1C; `offset`: of every band, by their numbers, or None for none."""
    kind, quantity = ("BOA_ADD_OFFSET", "BOA_QUANTIFICATION_VALUE") if level == "2A" else ("RADIO_ADD_OFFSET", "")
    rows = {} if offset is None else offset if isinstance(offset, dict) else dict.fromkeys(range(13), offset)
    offsets = "".join(f'<{kind} band_id="{band}">{value}</{kind}>' for band, value in rows.items())
    quantity = quantity or "QUANTIFICATION_VALUE"
    space = f"https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{level}.xsd"
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
{extra}<n1:Level-{level}_User_Product xmlns:n1="{space}">
  <n1:General_Info>
    <Product_Info>
      <PRODUCT_START_TIME>{sensed}</PRODUCT_START_TIME>
      <PRODUCT_URI>{name}.SAFE</PRODUCT_URI>
      <PROCESSING_LEVEL>Level-{level}</PROCESSING_LEVEL>
      <PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
      <GENERATION_TIME>2024-06-10T14:00:00.000000Z</GENERATION_TIME>
      <Datatake datatakeIdentifier="GS2B_20240610T100559_037000_N{baseline}">
        <SPACECRAFT_NAME>Sentinel-2B</SPACECRAFT_NAME>
      </Datatake>
      <Product_Organisation><Granule_List>
        <Granule datastripIdentifier="{strip}" granuleIdentifier="{granule}" imageFormat="JPEG2000"/>
      </Granule_List></Product_Organisation>
    </Product_Info>
    <Product_Image_Characteristics>
      <{quantity} unit="none">{quantification}</{quantity}>
      <{kind}_VALUES_LIST>{offsets}</{kind}_VALUES_LIST>
    </Product_Image_Characteristics>
  </n1:General_Info>
  <n1:Quality_Indicators_Info>
    <Cloud_Coverage_Assessment>5.25</Cloud_Coverage_Assessment>
  </n1:Quality_Indicators_Info>
</n1:Level-{level}_User_Product>
"""


def write_safe(
    folder: Path,
    bands: dict[str, NDArray[Any]],
    window: Window = GROUND,
    crs: str = "EPSG:32633",
    *,
    level: str = "2A",
    tile: str = "33TWL",
    day: str = "20240610T100559",
    baseline: str = "05.10",
    long_names: bool = False,
    **said: Any,
) -> Path:
    """A product of one granule in `folder`; `bands` by common name, each on its own grid. Returns its folder."""
    number, digits = baseline.replace(".", ""), f"{day[:4]}-{day[4:6]}-{day[6:8]}T{day[9:11]}:{day[11:13]}:{day[13:]}"
    strip = f"S2B_OPER_MSI_L{level}_DS_2BPS_{day}_S{day}_N{baseline}"
    identifier = f"S2B_OPER_MSI_L{level}_TL_2BPS_{day}_A037000_T{tile}_N{baseline}"
    name = f"S2B_MSIL{level}_{day}_N{number}_R022_T{tile}_{day}"
    root = folder / f"{name}.SAFE"
    granule, document = f"L{level}_T{tile}_A037000_{day}", f"MTD_MSIL{level}.xml"
    if long_names:
        root = folder / f"S2B_OPER_PRD_MSIL{level}_PDMC_{day}_R022_V{day}_{day}.SAFE"
        granule, document = identifier, f"S2B_OPER_MTD_SAFL{level}_PDMC_{day}_R022_V{day}_{day}.xml"
    images = root / "GRANULE" / granule / "IMG_DATA"
    for band, data in bands.items():
        gsd = 20 if band in COARSE else 10
        called = "SCL" if band == "scl" else NUMBERS[band]
        stem = f"{identifier[: -len(baseline) - 2]}_{called}" if long_names else f"T{tile}_{day}_{called}"
        where = images / f"R{gsd}m" / f"{stem}_{gsd}m.jp2" if level == "2A" else images / f"{stem}.jp2"
        write_jp2(where, data, window, crs, gsd)
    text = metadata(
        name,
        **{"level": level, "baseline": baseline, "granule": identifier, "strip": strip, "sensed": f"{digits}.024Z"}
        | said,
    )
    (root / document).write_text(text)
    (root / "GRANULE" / granule / "MTD_TL.xml").write_text("<Level-2A_Tile_ID/>")
    (root / "manifest.safe").write_text("<XFDU/>")
    return root


def zipped(folder: Path, target: Path, method: int = zipfile.ZIP_DEFLATED, inside: str | None = None) -> Path:
    """A folder as a zip, below `inside`; by default below its own name."""
    inside = folder.name if inside is None else inside
    with zipfile.ZipFile(target, "w", method) as sink:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                sink.write(path, str(Path(inside) / path.relative_to(folder)))
    return target


def planes(window: Window = GROUND, seed: int = 0, bands: tuple[str, ...] = ("red", "green", "blue", "nir")) -> Any:
    """Numbers of every band, of SAFE's kind (baseline 04.00 or later), and classes; some of each kind of pixel."""
    rng = np.random.default_rng(seed)
    made: dict[str, NDArray[Any]] = {}
    for band in bands:
        shape = (window.height // 2, window.width // 2) if band in COARSE else (window.height, window.width)
        made[band] = rng.integers(1200, 6000, shape, dtype=np.uint16)
    made["scl"] = rng.choice(np.array([4, 5, 6, 9], np.uint8), (window.height // 2, window.width // 2))
    made["scl"][:8, :8] = 0
    for band in bands:
        part = 8 if band in COARSE else 16
        made[band][:part, :part] = 0
    return made
