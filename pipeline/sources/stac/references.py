"""From an item document to what fetch needs of it: an item in a catalogue in, an `ItemReference` out, or what it lacks.

Assets are found by every name that catalogues give a band; addresses are resolved as far as they may be followed, read
without Azure's signatures and stored without any secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rsup.models.base.errors import CatalogError
from rsup.models.sensors.profile import Sensor
from rsup.pipeline.public import public_address

from .documents import Asset, Item, problem
from .interval import stamp
from .items import ItemReference, LeftOut
from .search import resolve


@dataclass(frozen=True)
class Candidate:
    """An item that was asked for, its assets not looked at yet."""

    item: Item
    document: dict[str, Any]
    base: str
    """The address that its relative hrefs start from."""
    address: str | None
    """Where it lies itself; None where nothing says so."""


def reference(
    candidate: Candidate, root: Path | None, sensor: Sensor, bands: tuple[str, ...], classified: bool
) -> ItemReference | LeftOut:
    """The item in rsup's words, or what it lacks: one of `bands`, or, where it must be `classified`, the classes.

    Raises CatalogError where an asset is not as it must be.
    """
    item, document, base = candidate.item, candidate.document, candidate.base
    try:
        assets = document.get("assets")
        if not isinstance(assets, dict):
            raise CatalogError("assets: must be an object")
        keys = {band.name: key for band in sensor.layers for key in reversed(band.names) if key in assets}
        evidence = next((band for band in (*sensor.evidence_bands, *bands) if band in keys), None)
        missing = [band for band in bands if band not in keys]
        if missing or evidence is None:
            tried = ", ".join(sensor.band(missing[0]).asset_keys)
            return LeftOut(item.id, f"item {item.id} has no asset for band {missing[0]} (looked for {tried})")
        classes = [sensor.classification] if sensor.classification in keys else []
        if classified and not classes:
            return LeftOut(item.id, f"item {item.id} has no scene classification, which --mask-clouds needs", True)
        wanted = dict.fromkeys((*bands, evidence, *classes))
        described = {band: _asset(keys[band], assets[keys[band]]) for band in wanted}
        hrefs = {band: _unsigned(resolve(asset.href, base, root)) for band, asset in described.items()}
        xml = next((key for key in sensor.metadata_assets if key in assets), None)
        metadata = _unsigned(resolve(_asset(xml, assets[xml]).href, base, root)) if xml else None
    except CatalogError as error:
        raise CatalogError(f"item {item.id} {error}") from error
    properties = document["properties"]
    identity = sensor.identify(item.id, properties)
    return ItemReference(
        sensor=sensor,
        id=item.id,
        collection=item.collection,
        datetime="" if item.moment is None else stamp(item.moment),
        cloud=item.properties.cloud,
        platform=identity.platform,
        tile=identity.tile,
        segment=identity.segment,
        baseline=identity.baseline,
        generation=identity.generation,
        geometry=item.geometry,
        hrefs=hrefs,
        assets={band: asset.described() for band, asset in described.items()},
        evidence_band=evidence,
        product_metadata=metadata,
        properties={k: v for k, v in properties.items() if k.split(":")[0] in sensor.kept_properties},
        public_href=None if candidate.address is None else _stored(candidate.address, root),
        public_hrefs={band: _stored(address, root) for band, address in hrefs.items()},
    )


def _asset(key: str, fields: Any) -> Asset:
    try:
        return Asset.model_validate(fields)
    except ValueError as error:
        raise CatalogError(f"has an asset {key} that is not as STAC has it ({problem(error)})") from error


def _stored(address: str, root: Path | None) -> str:
    """An address as it may be stored: without secrets, and relative to the folder of a local catalogue."""
    path = Path(address)
    return path.relative_to(root).as_posix() if root and path.is_relative_to(root) else public_address(address)


def _unsigned(href: str) -> str:
    """An Azure href without its signature, which expires in under an hour and is made anew when reading."""
    parts = urlsplit(href)
    azure = (parts.hostname or "").endswith(".blob.core.windows.net")
    return parts._replace(query="").geturl() if azure else href
