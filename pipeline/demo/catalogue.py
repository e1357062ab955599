"""The archive's catalogue: products in, a static STAC catalogue in the manner of Earth Search out."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pystac
from pyproj import Transformer

from rsup.pipeline.lattice import Window

from .acquisitions import Acquisition
from .canvas import SUN_AZIMUTH, SUN_ELEVATION
from .product import Shares
from .sensor import BAND_GSD, CLASSES_GSD, SENSOR
from .spectra import BANDS

_EXTENSIONS = [
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "https://stac-extensions.github.io/view/v1.0.0/schema.json",
    "https://stac-extensions.github.io/grid/v1.1.0/schema.json",
    "https://stac-extensions.github.io/mgrs/v1.0.0/schema.json",
]
# Centre wavelength and width (micrometres) of each band.
_BANDS = {
    "red": (0.665, 0.038),
    "green": (0.560, 0.045),
    "blue": (0.490, 0.098),
    "nir": (0.842, 0.145),
    "swir16": (1.610, 0.143),
}
# What the s2 properties call each scene class.
_CLASS_PROPERTIES = {
    2: "dark_features",
    3: "cloud_shadow",
    4: "vegetation",
    5: "not_vegetated",
    6: "water",
    7: "unclassified",
    8: "medium_proba_clouds",
    9: "high_proba_clouds",
    10: "thin_cirrus",
    11: "snow_ice",
}


@dataclass(frozen=True)
class Product:
    """One product as written."""

    acquisition: Acquisition
    window: Window
    """What its rasters cover, on the lattice of its zone."""
    shares: Shares


def write_catalogue(root: Path, products: list[Product]) -> None:
    """Write catalog.json, a collection and one item a product under `root`, all links relative."""
    items = [_item(root, product) for product in products]
    times = [item.datetime for item in items if item.datetime is not None]
    boxes = [item.bbox for item in items if item.bbox is not None]
    corners = list(zip(*boxes, strict=True))
    union = [min(corners[0]), min(corners[1]), max(corners[2]), max(corners[3])]
    collection = pystac.Collection(
        SENSOR.collections[0],
        "Made Sentinel-2 L2A products of a made landscape",
        pystac.Extent(pystac.SpatialExtent([union]), pystac.TemporalExtent([[min(times), max(times)]])),
        license="CC0-1.0",
    )
    catalog = pystac.Catalog("made-archive", "A made Sentinel-2 archive with a known truth")
    catalog.add_child(collection)
    collection.add_items(items)
    catalog.normalize_hrefs(str(root))
    # Beside its assets rather than in the collection's folder: one folder is one product.
    for item in items:
        item.set_self_href(str(root / item.id / f"{item.id}.json"))
        item.make_asset_hrefs_relative()
    catalog.save(pystac.CatalogType.SELF_CONTAINED)


def _item(root: Path, product: Product) -> pystac.Item:
    acquisition, shares = product.acquisition, product.shares
    west, south, east, north = product.window.bounds
    to_degrees = Transformer.from_crs(acquisition.crs, "EPSG:4326", always_xy=True)
    longitude, latitude = to_degrees.transform((west, east, east, west), (south, south, north, north))
    ring = [[round(x, 6), round(y, 6)] for x, y in zip(longitude, latitude, strict=True)]
    bbox = [
        min(x for x, _ in ring),
        min(y for _, y in ring),
        max(x for x, _ in ring),
        max(y for _, y in ring),
    ]
    item = pystac.Item(
        acquisition.item_id,
        geometry={"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        bbox=bbox,
        datetime=dt.datetime.fromisoformat(acquisition.datetime),
        properties=_properties(acquisition, shares),
        stac_extensions=_EXTENSIONS,
    )
    folder = root / acquisition.item_id
    for band in BANDS:
        item.add_asset(band, _asset(folder / f"{band}.tif", product, BAND_GSD[band], _reflectance(band, acquisition)))
    classes = {"title": "Scene classification", "raster:bands": [{"nodata": 0, "data_type": "uint8"}]}
    item.add_asset("scl", _asset(folder / "scl.tif", product, CLASSES_GSD, classes))
    return item


def _properties(acquisition: Acquisition, shares: Shares) -> dict[str, Any]:
    tile, satellite = acquisition.tile, f"S2{acquisition.platform[-1].upper()}"
    sensed, made = acquisition.sensed, acquisition.generated
    number = acquisition.baseline.replace(".", "")
    percentages = {
        f"s2:{name}_percentage": round(100 * shares.classes[code], 6) for code, name in _CLASS_PROPERTIES.items()
    }
    return {
        "platform": acquisition.platform,
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "gsd": min(BAND_GSD.values()),
        "eo:cloud_cover": round(100 * shares.cloud, 6),
        "proj:code": acquisition.crs,
        "grid:code": f"MGRS-{tile}",
        "mgrs:utm_zone": int(tile[:2]),
        "mgrs:latitude_band": tile[2],
        "mgrs:grid_square": tile[3:],
        "view:sun_azimuth": SUN_AZIMUTH,
        "view:sun_elevation": SUN_ELEVATION,
        "s2:product_type": "S2MSI2A",
        "s2:processing_baseline": acquisition.baseline,
        "s2:product_uri": (f"{satellite}_MSIL2A_{sensed}_N{number}_R{acquisition.orbit:03d}_T{tile}_{made}.SAFE"),
        "s2:datatake_id": f"{acquisition.datatake}_N{acquisition.baseline}",
        "s2:datatake_type": "INS-NOBS",
        "s2:datastrip_id": (f"{satellite}_OPER_MSI_L2A_DS_MADE_{made}_S{sensed}_N{acquisition.baseline}"),
        "s2:generation_time": dt.datetime.strptime(made, "%Y%m%dT%H%M%S").isoformat() + "Z",
        "s2:sequence": str(acquisition.sequence),
        "s2:nodata_pixel_percentage": round(100 * shares.nodata, 6),
        "earthsearch:boa_offset_applied": False,
        **percentages,
    }


def _reflectance(band: str, acquisition: Acquisition) -> dict[str, Any]:
    """Asset fields of a band: how its numbers become reflectance, and which light it sees."""
    _, name, *_ = SENSOR.band(band).asset_keys  # ESA's comes after the common one
    centre, width = _BANDS[band]
    return {
        "title": f"{band} ({name}) - {BAND_GSD[band]}m",
        "eo:bands": [{"name": name, "common_name": band, "center_wavelength": centre, "full_width_half_max": width}],
        "raster:bands": [
            {
                "nodata": 0,
                "data_type": "uint16",
                "bits_per_sample": 15,
                "spatial_resolution": BAND_GSD[band],
                "scale": 0.0001,
                "offset": acquisition.offset / 10_000,
            }
        ],
    }


def _asset(path: Path, product: Product, gsd: int, fields: dict[str, Any]) -> pystac.Asset:
    west, _, _, north = product.window.bounds
    pixels = product.window.in_pixels_of(gsd)
    grid = {"gsd": gsd, "proj:shape": [pixels.height, pixels.width], "proj:transform": [gsd, 0, west, 0, -gsd, north]}
    extra = {key: value for key, value in fields.items() if key != "title"}
    return pystac.Asset(
        str(path),
        title=fields["title"],
        media_type=pystac.MediaType.COG,
        roles=["data"],
        extra_fields=grid | extra,
    )
