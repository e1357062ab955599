"""The COGs of one interval in one UTM zone as one image: what their items say in, GDAL's virtual raster (VRT) out.

As `gdalbuildvrt` makes it of files on one grid: their union, on their own pixels, each file shown where it is not
nodata. GDAL opens it without opening the files, whose sizes and types it states; overviews are the files' own. Paths
are relative to it, and equal items give equal bytes. (Format: GDAL's documentation of the VRT driver.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree as Xml

from rsup.pipeline.mosaics.tiff.cog import BLOCK, COLOURS

TYPES = {"uint16": "UInt16"}
"""GDAL's names of data types."""


@dataclass(frozen=True)
class Image:
    """A COG, by its item."""

    path: str
    """Relative to the VRT."""
    code: str
    """Its CRS, "EPSG:32633"."""
    height: int
    width: int
    west: float
    """Of its outer edge, in metres, and `north` likewise."""
    north: float
    gsd: float
    """Side of a pixel, in metres."""
    bands: tuple[dict[str, Any], ...]
    """What STAC says of each: name, data_type, nodata, raster:scale, raster:offset."""


def image_of(item: dict[str, Any], asset: str, folder: str) -> Image:
    """The COG that is the asset `asset` of an item, which lies in `folder`, relative to the VRT."""
    properties, file = item["properties"], item["assets"][asset]
    height, width = properties["proj:shape"]
    gsd, _, west, _, _, north = properties["proj:transform"]
    path = f"{folder}/{unquote(file['href']).removeprefix('./')}"
    return Image(path, properties["proj:code"], height, width, west, north, gsd, tuple(file["bands"]))


def vrt_of(images: Sequence[Image]) -> bytes:
    """The VRT of images with one CRS, one size of pixels and the same bands."""
    images = sorted(images, key=lambda image: (-image.north, image.west, image.path))
    first = images[0]
    west, north = min(image.west for image in images), max(image.north for image in images)
    places = [
        (round((image.west - west) / first.gsd), round((north - image.north) / first.gsd), image) for image in images
    ]
    width, height = (max(ends) for ends in zip(*((x + i.width, y + i.height) for x, y, i in places), strict=True))
    root = Xml.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    _add(root, "SRS", first.code, dataAxisToSRSAxisMapping="1,2")
    _add(root, "GeoTransform", ", ".join(map(repr, (west, first.gsd, 0.0, north, 0.0, -first.gsd))))
    for number, band in enumerate(first.bands, start=1):
        kind = TYPES[band["data_type"]]
        drawn = _add(root, "VRTRasterBand", dataType=kind, band=str(number))
        _add(drawn, "Description", band["name"])
        _add(drawn, "NoDataValue", band["nodata"])
        _add(drawn, "Offset", band["raster:offset"])
        _add(drawn, "Scale", band["raster:scale"])
        if band["name"] in COLOURS:
            _add(drawn, "ColorInterp", COLOURS[band["name"]].name.capitalize())
        for x, y, image in places:
            _source(drawn, number, kind, x, y, image, band["nodata"])
    Xml.indent(root)
    return (Xml.tostring(root, encoding="unicode") + "\n").encode()


def _source(band: Xml.Element, number: int, kind: str, x: int, y: int, image: Image, nodata: float) -> None:
    size = {"xSize": str(image.width), "ySize": str(image.height)}
    source = _add(band, "ComplexSource")
    _add(source, "SourceFilename", image.path, relativeToVRT="1")
    _add(source, "SourceBand", number)
    _add(
        source,
        "SourceProperties",
        RasterXSize=str(image.width),
        RasterYSize=str(image.height),
        DataType=kind,
        BlockXSize=str(BLOCK),
        BlockYSize=str(BLOCK),
    )
    _add(source, "SrcRect", xOff="0", yOff="0", **size)
    _add(source, "DstRect", xOff=str(x), yOff=str(y), **size)
    _add(source, "NODATA", nodata)


def _add(parent: Xml.Element, tag: str, text: object = None, **attributes: str) -> Xml.Element:
    child = Xml.SubElement(parent, tag, attributes)
    child.text = None if text is None else str(text)
    return child
