"""One item on one window of the lattice: an item reference in, its pixels as stored numbers out.

The files' own headers say where their pixels lie, never the catalogue. Each band is read on its own native grid,
converted to stored numbers there, and only then brought onto the lattice: numbers that wrapped around would bleed into
their neighbours otherwise. Pixels already on the lattice are copied, not resampled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from rsup.models.base.errors import SceneError
from rsup.models.base.radiometry import LEAST, LOWEST
from rsup.models.sensors.profile import Evidence, NumberRule, UndecidedError
from rsup.pipeline.lattice import Rectangle, Window

from .asset_file import Header, check_whole
from .packing import Packing, asset_offset, classes, nodata_of
from .products.readers import reader_of
from .remote import text
from .resample import Method, resample
from .retry import item_band, persevere
from .stac.items import ItemReference


@dataclass(frozen=True)
class InspectedItem:
    """An item that has been looked at: where its pixels lie and what their numbers mean."""

    item: ItemReference
    headers: dict[str, Header]
    """Of the assets of every band and of the classes."""
    packings: dict[str, Packing]
    """Of every band."""
    decision: NumberRule
    sign: bool
    """Its hrefs need Planetary Computer's signature, made anew at each read because it expires."""

    def rule(self, band: str) -> NumberRule:
        """What a band's numbers need: as the item's, but for an offset that its product states of that band."""
        own = self.item.offsets.get(band)
        return self.decision if own is None or self.decision.by_user else replace(self.decision, offset=own)

    def zero(self, band: str) -> int:
        """The stored number of a 0 that is no nodata."""
        return self.packings[band].zero(self.rule(band))

    @property
    def coarse(self) -> dict[str, float]:
        """Bands whose pixels are larger than the sensor's, and how large, in metres."""
        return {
            band: self.headers[band].grid.pixel
            for band in self.packings
            if self.headers[band].grid.pixel > self.item.sensor.band(band).gsd * (1 + 1e-6)
        }


@dataclass(frozen=True)
class Pixels:
    """One band of an item on a window."""

    numbers: NDArray[np.uint16]
    """[y, x], stored numbers; 0 where there is none."""
    zero: NDArray[np.bool_]
    """[y, x], where the file has a plain 0: nodata, or the darkest number. One band alone does not tell."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence, around threads that read, a warning of rasterio: an asset without georeference is an error here.

    Around them, not in them: filters of warnings are the process's, so that threads would undo each other's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def inspect(item: ItemReference, wanted: int | None, sign: bool) -> InspectedItem:
    """Look at an item: the headers of its assets, whether they belong together, its dark pixels for the offset.

    The look is at the whole item, coarsely, so that the decision is the same whatever ground is fetched.
    Raises SceneError where an asset cannot be read or used, or the offset cannot be decided.
    """
    headers: dict[str, Header] = {}
    packings: dict[str, Packing] = {}
    for band in item.hrefs:
        label = item_band(item, band)
        headers[band] = persevere(item, band, lambda fresh, band=band: _look(item, band, sign, fresh))  # type: ignore[misc]
        with _named(label):
            if band == item.sensor.classification:
                nodata_of(headers[band].nodata, item.assets[band])
            else:
                header = headers[band]
                packings[band] = Packing.of(header.dtype, header.packing, header.nodata, item.assets[band])
    _check_together(item, headers)
    return InspectedItem(item, headers, packings, _decide(item, headers, packings, wanted, sign), sign)


def _look(item: ItemReference, band: str, sign: bool, fresh: bool) -> Header:
    href, label = _href(item, band, sign), item_band(item, band)
    header = reader_of(href).read_header(label, href, item.sensor, fresh)
    check_whole(label, href, item.assets[band])
    return header


def _check_together(item: ItemReference, headers: dict[str, Header]) -> None:
    """The bands of an item have one CRS, one ground, and pixels of the sensor's sizes, or all of them larger ones."""
    first = headers[item.evidence_band].grid
    sizes = {band: header.grid.pixel for band, header in headers.items() if band != item.sensor.classification}
    for band, header in headers.items():
        grid, pair = header.grid, f"item {item.id}: its {item.evidence_band} and {band} assets"
        remedy = "correct its item or get its product anew, or leave it out by --date"
        if grid.crs != first.crs:
            raise SceneError(f"{pair} lie in {first.crs[:60]} and {grid.crs[:60]}, not in one CRS; {remedy}")
        apart = max(abs(a - b) for a, b in zip(grid.bounds, first.bounds, strict=True))
        if apart > max(grid.pixel, first.pixel) * (1 + 1e-6):
            raise SceneError(f"{pair} do not cover the same ground (their edges are {apart:g} m apart); {remedy}")
        native = item.sensor.band(band).gsd
        finest = min(sizes, key=lambda other: sizes[other])
        if grid.pixel > max(native, sizes[finest]) * (1 + 1e-6):
            raise SceneError(
                f"{item_band(item, band)}: its pixels are {grid.pixel:g} m wide, not {native} m, "
                f"while those of {finest} "
                f"are {sizes[finest]:g} m; {remedy}"
            )


def _decide(
    item: ItemReference, headers: dict[str, Header], packings: dict[str, Packing], wanted: int | None, sign: bool
) -> NumberRule:
    """Which offset the item's numbers of the product carry: one for all its bands, but for what its product states."""
    if item.offsets:
        stated = item.offsets[item.evidence_band]
        user = wanted is not None
        chosen = stated if wanted is None else wanted
        against = ", against the evidence" if chosen != stated else ""
        words = (*item.stated, *((f"decided by --offset {wanted}{against}",) if user else ()))
        return NumberRule(chosen, False, item.baseline, words, user, chosen != stated)
    of_product = [band for band in (item.evidence_band, *packings) if packings[band].scale is None]
    if not of_product:
        band = item.evidence_band
        declared = packings[band]
        offset = round((declared.offset or 0) * 10000) if wanted is None else wanted
        said = f"the {band} asset declares scale {declared.scale:g} and offset {declared.offset or 0:g}"
        user = wanted is not None
        overrules = user and offset != round((declared.offset or 0) * 10000)
        against = ", against the evidence" if overrules else ""
        evidence = (said, *((f"decided by --offset {wanted}{against}",) if user else ()))
        return NumberRule(offset, False, item.baseline, evidence, user, overrules)
    band = of_product[0]
    claims = {name: _claims(item, packings[name], name) for name in of_product}
    other = next((name for name in of_product if claims[name] and claims[band] and claims[name] != claims[band]), None)
    if other and wanted is None:
        raise UndecidedError(
            f"item {item.id}: its {band} and {other} assets declare different offsets ({sorted(claims[band])} and "
            f"{sorted(claims[other])}); decide with --offset {item.id}=0 or --offset {item.id}=-1000"
        )
    read_coarse = reader_of(item.hrefs[band]).read_coarse
    values = persevere(item, band, lambda fresh: read_coarse(_href(item, band, sign), headers[band], fresh))
    known = Evidence(
        item.id,
        item.properties,
        asset_offset(item.assets[band]),
        packings[band].claim,
        _product_offset(item) if item.baseline is None else None,
        packings[band].coarse(values),
    )
    return item.sensor.number_rule(known, wanted)


def _claims(item: ItemReference, packing: Packing, band: str) -> set[int]:
    return {claim for claim in (packing.claim, asset_offset(item.assets[band])) if claim is not None}


def read(inspected: InspectedItem, band: str, window: Window, crs: str) -> Pixels:
    """A band on `window` in the lattice of `crs`, bilinear where it is not on the lattice.

    Raises SceneError, naming item and band.
    """

    # Where a product states what its numbers mean, shade that was corrected too far is no sign of a wrong scale.
    least = LEAST if band in inspected.item.offsets else LOWEST

    def convert(values: NDArray[Any]) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        packing, sensor = inspected.packings[band], inspected.item.sensor
        numbers, zero = packing.stored(values, inspected.rule(band), sensor.to_stored, least)
        return numbers, zero.astype(np.uint16)

    numbers, zero = _on_lattice(inspected, band, window, crs, convert, ("bilinear", "nearest"))
    return Pixels(numbers, zero > 0)


def read_classes(inspected: InspectedItem, window: Window, crs: str) -> NDArray[np.uint8]:
    """Scene classes [y, x] on `window` in the lattice of `crs`, by nearest neighbour; 0 where there is none.

    Raises SceneError, naming the item.
    """
    scheme = inspected.item.sensor.classes
    assert scheme is not None and scheme.band.name in inspected.headers
    name, count = scheme.band.name, len(scheme.names)
    nodata = nodata_of(inspected.headers[name].nodata, inspected.item.assets[name])

    def convert(values: NDArray[Any]) -> tuple[NDArray[np.uint16]]:
        return (classes(values, nodata, count).astype(np.uint16),)

    return _on_lattice(inspected, name, window, crs, convert, ("nearest",))[0].astype(np.uint8)


def _on_lattice(
    inspected: InspectedItem,
    band: str,
    window: Window,
    crs: str,
    convert: Callable[[NDArray[Any]], tuple[NDArray[np.uint16], ...]],
    methods: tuple[Method, ...],
) -> list[NDArray[np.uint16]]:
    """What `convert` makes of the file's own numbers, each brought onto the lattice by its method."""
    header = inspected.headers[band]
    grid, place = header.grid, header.grid.on_lattice(crs, window.gsd)
    whole = Rectangle(0, 0, grid.height, grid.width)
    with _named(item_band(inspected.item, band)):
        if place:
            native = Rectangle(window.row - place.row, window.col - place.col, window.height, window.width)
        else:
            native = grid.around(window, crs)
        planes = [np.zeros((native.height, native.width), np.uint16) for _ in methods]
        inside = native.intersect(whole)
        if inside:
            rows, cols = inside.within(whole)
            read_window = reader_of(inspected.item.hrefs[band]).read_window
            values = persevere(
                inspected.item,
                band,
                lambda fresh: read_window(_href(inspected.item, band, inspected.sign), header, rows, cols, fresh),
            )
            for plane, part in zip(planes, convert(values), strict=True):
                plane[inside.within(native)] = part
    if place:
        return planes
    nothing = np.zeros((window.height, window.width), np.uint16)
    return [
        resample(plane, native, grid, window, crs, method) if plane.any() else nothing
        for plane, method in zip(planes, methods, strict=True)
    ]


@contextmanager
def _named(label: str) -> Iterator[None]:
    """Make a ValueError, which knows why an asset cannot be used, a SceneError that says which."""
    try:
        yield
    except ValueError as error:
        raise SceneError(f"{label}: its asset cannot be used: {error}") from error


def _href(item: ItemReference, band: str, sign: bool) -> str:
    href = item.hrefs[band]
    if not sign:
        return href
    import planetary_computer

    return str(planetary_computer.sign_url(href))


def _product_offset(item: ItemReference) -> int | None:
    """The offset in the product's own metadata, as far as it can be had."""
    metadata = text(item.product_metadata) if item.product_metadata else None
    return None if metadata is None else item.sensor.product_offset(metadata)
