"""The made archive: a seed and a size in; products as COGs, a static STAC catalogue and the truth out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pyproj import Transformer

from rsup.pipeline.lattice import Window, snap

from .acquisitions import ACQUISITIONS, Acquisition
from .catalogue import Product, write_catalogue
from .clouds import Sky
from .landscape import CRS, ORIGIN, Landscape
from .noise import mix
from .product import Swath, expose
from .rasters import truth_raster
from .sensor import CLASSES_GSD
from .survey import measure

MARGIN = 64
"""10 m pixels of imagery on each side of the truth."""


@dataclass(frozen=True)
class Archive:
    """Where the parts of a made archive lie."""

    root: Path
    """Folder that is served: catalog.json, and everything its links lead to."""
    truth: Path
    """COG of the landscape at 1.25 m, all bands, in the scene store's numbers."""
    window: Window
    """What the truth covers, on the lattice of landscape.CRS."""
    bbox: tuple[float, float, float, float]
    """West, south, east, north to fetch, degrees; snapped in landscape.CRS it lies in `window`."""
    items: tuple[str, ...]
    """Ids, in the order of acquisitions.ACQUISITIONS."""


def make_archive(root: Path, seed: int = 0, size: int = 256) -> Archive:
    """Make the archive of a square of `size` 10 m pixels in the folder `root`, which must not exist.

    Each product holds the part of its tile that lies over the landscape. Raises FileExistsError where `root`
    exists.
    """
    root = root.resolve()  # below a relative folder the catalogue's links to the assets lead nowhere
    root.mkdir(parents=True)
    centre = snap((*ORIGIN, *ORIGIN))
    aoi = replace(centre, row=centre.row - size // 2, col=centre.col - size // 2, height=size, width=size)
    # Meridians lean two degrees here: a box in degrees grows by 3.5 % when it is snapped to the zone's grid.
    window = aoi.grow(4 + size // 40)
    region = _even(window.grow(MARGIN))

    landscape = Landscape(seed)
    with truth_raster(root / "truth.tif", window, CRS) as truth:
        ground = measure(landscape, region, CRS, truth)
    products = []
    for acquisition in ACQUISITIONS:
        footprint = _footprint(acquisition, region)
        seen = ground.cut(footprint) if acquisition.crs == CRS else measure(landscape, footprint, acquisition.crs)
        sky = Sky.over(int(mix(seed, *acquisition.datatake.encode())[0]), acquisition.cloud, region.bounds)
        folder = root / acquisition.item_id
        folder.mkdir()
        shares = expose(acquisition, seen, sky, Swath(region, acquisition.swath, acquisition.swath_side), seed, folder)
        products.append(Product(acquisition, footprint, shares))
    write_catalogue(root, products)
    return Archive(root, root / "truth.tif", window, _bbox(aoi), tuple(each.item_id for each in ACQUISITIONS))


def _even(window: Window) -> Window:
    """The smallest window around `window` that holds whole 20 m pixels only."""
    return snap(window.bounds, CLASSES_GSD).in_pixels_of(window.gsd)


def _footprint(acquisition: Acquisition, region: Window) -> Window:
    """The part of the acquisition's tile that lies over the `region`, on the lattice of its own zone."""
    zone = region
    if acquisition.crs != CRS:
        to_zone = Transformer.from_crs(CRS, acquisition.crs, always_xy=True)
        west, south, east, north = region.bounds
        x, y = to_zone.transform((west + east) / 2, (south + north) / 2)
        half = round(acquisition.share * region.width / 2) * region.gsd
        zone = _even(snap((x - half, y - half, x + half, y + half)))
    common = zone.intersect(snap(acquisition.tile_bounds))
    assert common is not None  # the landscape lies where the tiles overlap
    return common


def _bbox(aoi: Window) -> tuple[float, float, float, float]:
    """The box in degrees through the middles of aoi's four sides."""
    west, south, east, north = aoi.bounds
    to_degrees = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    x, y = (west + east) / 2, (south + north) / 2
    longitude, latitude = to_degrees.transform((west, east, x, x), (y, y, south, north))
    return round(longitude[0], 6), round(latitude[2], 6), round(longitude[1], 6), round(latitude[3], 6)
