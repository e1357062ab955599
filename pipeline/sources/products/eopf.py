"""EOPF products of Sentinel-2 in Zarr: a store in, an item with arrays as its assets out.

As ESA writes them (Zarr 2), and as the EOPF Explorer writes them again (Zarr 3, GeoZarr). What a store is, its groups
say; what its numbers mean, each array's codecs and attributes; what it was made of, its `stac_discovery`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rsup.models.base.errors import SceneError
from rsup.models.base.progress import say
from rsup.models.sensors import sensor_of
from rsup.pipeline.places.address import Keyed
from rsup.pipeline.public import printable, public_address
from rsup.pipeline.scenes.remote import ScenePath
from rsup.pipeline.sources.stac.documents import Dated, problem
from rsup.pipeline.sources.stac.interval import stamp
from rsup.pipeline.sources.stac.items import ItemReference

from .product import LEVEL_1C, Product, described
from .safe.granules import NEW_NUMBERS
from .safe.metadata import BANDS
from .zarr_asset import chunks_of, href_of, read_header
from .zarr_store import ZarrStore, array_at, store_at

REFLECTANCE = "measurements/reflectance"
"""The group that makes a store a product."""
CLASSES = "conditions/mask/l2a_classification/r20m/scl"
SIZES = (10, 20, 60, 120, 360, 720)
"""Metres of the pixels of its groups: r10m, ..."""
RAW = 1e-4
"""Scale of the products' numbers."""


def is_eopf(place: ScenePath) -> bool:
    """Whether a store is such a product. Raises SceneError where its documents are none, or a server does not say."""
    return ZarrStore(place).has_group(REFLECTANCE)


def _address(place: ScenePath) -> str:
    return str(place if isinstance(place, Keyed) else place.resolve())


def read_eopf(place: ScenePath, bands: Sequence[str]) -> Product:
    """The product as an item with the assets of `bands` (common names), and of the classes where it has any.

    Raises SceneError for what is missing, damaged, or said by nobody or twice.
    """
    address = _address(place)
    store_at.cache_clear()  # it may be another one than before
    array_at.cache_clear()
    store, sensor = store_at(address), sensor_of("sentinel-2-l2a")
    about = _about(store)
    paths = {band: _path(store, band) for band in bands}
    scl = sensor.classification
    if scl is not None and store.array(CLASSES) is not None:
        paths[scl] = CLASSES
    _check_chunks(address, [paths[band] for band in bands])
    properties = about["properties"]
    identity = sensor.identify(about["id"], properties)
    label = f"item {about['id']}"
    headers = {
        band: read_header(f"{label}, band {band}", href_of(address, path), sensor, False)
        for band, path in paths.items()
    }
    assets: dict[str, dict[str, Any]] = {band: {} for band in paths}
    offsets: dict[str, int] = {}
    for band in bands:
        (scale, offset), dtype = headers[band].packing, headers[band].dtype
        if (scale, offset) != (1.0, 0.0):
            found = array_at(address, paths[band])
            # What nobody states where a baseline has it is for the evidence to decide, as of a SAFE product.
            unsaid = found.scaled is None and found.attributes.get("add_offset") is None
            doubted = unsaid and (identity.baseline or "00.00") >= NEW_NUMBERS
            assets[band] = described(scale, None if doubted else offset)
            if math.isclose(scale, RAW, rel_tol=1e-6) and not doubted:
                offsets[band] = round(offset / RAW)
        elif dtype.startswith("float"):
            assets[band] = {"raster:bands": [{"scale": 1.0, "offset": 0.0}]}
        else:
            raise SceneError(
                f"{store.title}: {paths[band]} holds {dtype} and says no scale, in its codecs or its attributes: "
                "what its numbers mean is unknown; get the product anew"
            )
    certain = len(offsets) == len(bands) and set(offsets.values()) <= set(sensor.offsets)
    level = (
        "1c"
        if "L1C" in f"{about['id']} {properties.get('product:type')} {properties.get('processing:level')}"
        else "2a"
    )
    evidence = [f"{paths[band]}: its offset is {offset} in numbers of the product" for band, offset in offsets.items()]
    if level == "1c":
        evidence.append(LEVEL_1C)
    shown = printable(public_address(f"{store.place.name}/{store.prefix}".rstrip("/")))
    item = ItemReference(
        sensor=sensor,
        id=about["id"],
        collection=f"sentinel-2-l{level}",
        datetime=stamp(about["sensed"]),
        cloud=about["cloud"],
        platform=identity.platform,
        tile=identity.tile,
        segment=identity.segment,
        baseline=identity.baseline,
        generation=identity.generation,
        geometry=None,
        hrefs={band: href_of(address, path) for band, path in paths.items()},
        assets=assets,
        evidence_band=bands[0],
        product_metadata=None,
        properties={k: v for k, v in properties.items() if k.split(":")[0] in sensor.kept_properties},
        public_hrefs={
            band: f"{public_address(address)}/{path}" if "://" in address else f"{shown}/{path}"
            for band, path in paths.items()
        },
        offsets=offsets if certain else {},
        stated=tuple(evidence),
    )
    return Product.of(item, headers[bands[0]].grid)


def _check_chunks(address: str, paths: Sequence[str]) -> None:
    """Raise SceneError where an array has no chunk; say where it lacks one that another of the same pixels has.

    Nodata lies where it lies in all bands: what one of them alone lacks was lost, and that ground has no pixel.
    """
    held = {path: chunks for path in paths if (chunks := chunks_of(address, path)) is not None}
    for path, chunks in held.items():
        if not chunks:
            raise SceneError(f"{address}: {path} holds no chunk: the product is incomplete; get it anew")
        for other, others in held.items():
            if others - chunks and _cut(address, path) == _cut(address, other):
                say(
                    f"{public_address(address)}: {path} lacks its chunk {min(others - chunks)}, which {other} has: the "
                    "product is incomplete, and that ground stays without data; get it anew"
                )
                break


def _cut(address: str, path: str) -> tuple[Any, ...]:
    """How an array is cut into chunks."""
    array = array_at(address, path).array
    return array.shape, array.chunks, array.metadata.encode_chunk_key((0,) * array.ndim)


def _about(store: ZarrStore) -> dict[str, Any]:
    """Id, sensing time, cloud and properties, by `stac_discovery`; by the store's name where it has none."""
    discovery = store.attributes("").get("stac_discovery")
    name = printable(store.name)[:200]
    if not isinstance(discovery, dict):
        stamp = re.search(r"_(\d{8}T\d{6})(?:_|$)", name)
        if stamp is None:
            raise SceneError(f"{store.title} does not say when it was sensed (stac_discovery); get the product anew")
        try:
            sensed = datetime.strptime(stamp[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            raise SceneError(f"{store.title}: {stamp[1]} in its name is no date; get the product anew") from None
        return {"id": name, "sensed": sensed, "cloud": None, "properties": {}}
    try:
        found = Dated.model_validate({"id": name, **discovery})
        sensed = found.moment
    except ValueError as error:
        raise SceneError(
            f"{store.title}: its stac_discovery cannot be understood ({problem(error)}); get the product anew"
        ) from error
    properties = {k: v for k, v in discovery["properties"].items() if isinstance(v, str | int | float)}
    if "eopf:baseline" in properties:
        properties.setdefault("s2:processing_baseline", properties["eopf:baseline"])
    item_id = found.id.removesuffix(".SAFE").removesuffix(".zarr")
    return {"id": item_id, "sensed": sensed, "cloud": found.properties.cloud, "properties": properties}


def _path(store: ZarrStore, band: str) -> str:
    """The array of a band in the group of its own pixels or, where there is none, of the next larger ones."""
    own = sensor_of("sentinel-2-l2a").band(band)
    number = next(name for name in own.names if name in BANDS).lower()
    for size in SIZES:
        path = f"{REFLECTANCE}/r{size}m/{number}"
        if size >= own.gsd and store.array(path) is not None:
            return path
    raise SceneError(
        f"{store.title}: {REFLECTANCE} has no {number} ({band}) of {own.gsd} m or larger pixels: the product is "
        "incomplete; get it anew, or leave the band out of --bands"
    )
