"""What to do about a broken line of the scene contract: commands that work, with what rsup installs and nothing else.

In: the path of a store or GeoTIFF, and what only its owner can know as a value to be changed. Out: a command line to
copy, which runs this very Python. A command ending in NAME-mended.zarr leaves the original as it is and writes a store
beside it; the others correct the file's own words.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from rsup.models.base.radiometry import ADD_OFFSET, DN_MAX, DN_MIN, NODATA, SCALE_FACTOR
from rsup.pipeline.lattice import GSD

from .remote import ScenePath

_PARTS = '{"x": 1024, "y": 1024}'
"""Pixels held at once, and a chunk of what is written."""
_TIFF = (
    f'd = xarray.open_dataset(i, engine="rasterio", band_as_variable=True, chunks={_PARTS}); '
    'd = d.rename({b: d[b].attrs["long_name"] for b in d.data_vars}); '
)
"""A GeoTIFF with its bands by name: numbers * scale + offset, NaN where they are its nodata."""
_STORE = f'd = xarray.open_zarr(i, chunks={_PARTS}, decode_coords="all"); '
"""A store as reflectance."""
_RAW = f"d = xarray.open_zarr(i, chunks={_PARTS}, mask_and_scale=False).drop_encoding(); "
"""A store as it is: only what it says of itself changes."""
_PACKING = {"dtype": "uint16", "scale_factor": SCALE_FACTOR, "add_offset": ADD_OFFSET, "_FillValue": NODATA}
_LOWEST, _HIGHEST = (round(number * SCALE_FACTOR + ADD_OFFSET, 4) for number in (DN_MIN, DN_MAX))
_WRITE = (
    'r = [b for b in d.data_vars if d[b].dtype.kind == "f"]; '
    f"d = d.assign({{b: d[b].clip({_LOWEST}, {_HIGHEST}).drop_attrs() for b in r}}).drop_encoding(); "
    f"d.to_zarr(o, encoding={{b: {_PACKING} for b in r}})".replace("'", '"')
)
"""Reflectance as stored numbers: reflectance * 10000 + 1000, rounded, 0 for NaN."""
_WRITE_RAW = "d.to_zarr(o)"


def name_bands(path: ScenePath) -> str:
    """Give the bands of a GeoTIFF names, in their order."""
    code = 'import sys, rasterio; f = rasterio.open(sys.argv[1], "r+"); f.descriptions = sys.argv[2:]; f.close()'
    return _command(code, path, "red", "green", "blue")


def say_crs(path: ScenePath) -> str:
    """Write the CRS, whose code the owner knows."""
    if path.is_dir():
        return _mended(path, _RAW + "d = d.rio.write_crs(sys.argv[3]); " + _WRITE_RAW, "EPSG:32633")
    code = 'import sys, rasterio; f = rasterio.open(sys.argv[1], "r+"); f.crs = sys.argv[2]; f.close()'
    return _command(code, path, "EPSG:32633")


def say_packing(path: ScenePath) -> str:
    """Declare what stored numbers mean, where they are stored numbers."""
    if path.is_dir():
        words = f'{{"scale_factor": {SCALE_FACTOR}, "add_offset": {ADD_OFFSET}, "_FillValue": {NODATA}}}'
        return _mended(
            path,
            _RAW + f'[d[b].attrs.update({words}) for b in d.data_vars if d[b].dtype == "uint16" and b != "source"]; '
            'n = [d[b].encoding.pop("_FillValue", 0) for b in d.variables]; ' + _WRITE_RAW,
        )
    code = (
        'import sys, rasterio; f = rasterio.open(sys.argv[1], "r+"); '
        f"f.scales = [{SCALE_FACTOR}] * f.count; f.offsets = [{ADD_OFFSET}] * f.count; f.nodata = {NODATA}; f.close()"
    )
    return _command(code, path)


def convert(path: ScenePath, declared: bool) -> str:
    """Reflectance to stored numbers: as the file declares it, else by a scale and offset that the owner knows."""
    code = (_STORE if path.is_dir() else _TIFF) + (
        "" if declared else "d = d * float(sys.argv[3]) + float(sys.argv[4]); "
    )
    return _mended(path, code + _WRITE, *(() if declared else ("1e-4", "0")))


def onto_the_lattice(path: ScenePath) -> str:
    """Resample to 10 m pixels on the lattice of the UTM zone in which the image lies."""
    # Nodata is NaN by now; left to itself odc-geo would take reflectance 0 for it, by what the file called nodata.
    nodata = "src_nodata=numpy.nan, dst_nodata=numpy.nan"
    warp = f'd = d.odc.reproject("utm", resolution={GSD}, resampling="bilinear", {nodata}); '
    only = 'd = d[[b for b in d.data_vars if d[b].dtype.kind == "f"]]; '
    return _mended(path, (_STORE if path.is_dir() else _TIFF) + only + warp + _WRITE)


def turn(path: ScenePath) -> str:
    """Rows from north to south."""
    return _mended(path, (_STORE if path.is_dir() else _TIFF) + 'd = d.sortby("y", ascending=False); ' + _WRITE)


def transpose(path: ScenePath) -> str:
    """Dimensions in the order (y, x)."""
    return _mended(path, _RAW + 'd = d.transpose("y", "x"); ' + _WRITE_RAW)


def place(path: ScenePath) -> str:
    """Write x and y of a store from its north-west corner (metres east, metres north), which the owner knows."""
    x = f'float(sys.argv[3]) + {GSD} * numpy.arange(0.5, d.sizes["x"])'
    y = f'float(sys.argv[4]) - {GSD} * numpy.arange(0.5, d.sizes["y"])'
    code = f'd = d.drop_vars(["x", "y"], errors="ignore").assign_coords(x={x}, y={y}); '
    return _mended(path, _RAW + code + _WRITE_RAW, "380000", "5800000")


def interpolate(path: ScenePath) -> str:
    """Bring a store whose pixels are unevenly spaced onto the lattice."""
    x = f"numpy.arange({GSD} * numpy.ceil(d.x.min().item() / {GSD}) + {GSD / 2}, d.x.max().item(), {GSD})"
    y = f"numpy.arange({GSD} * numpy.floor(d.y.max().item() / {GSD}) - {GSD / 2}, d.y.min().item(), -{GSD})"
    only = 'd = d[[b for b in d.data_vars if d[b].dtype.kind == "f"]].chunk(x=-1, y=-1); '
    return _mended(path, _STORE + only + f"d = d.interp(x={x}, y={y}).chunk({_PARTS}); " + _WRITE)


def leave_out(path: ScenePath, name: str) -> str:
    """All but one array or band."""
    opened, write = (_RAW, _WRITE_RAW) if path.is_dir() else (_TIFF, _WRITE)
    return _mended(path, opened + "d = d.drop_vars(sys.argv[3]); " + write, name)


def forget_aoi(path: ScenePath) -> str:
    """Without the attribute `aoi`."""
    return _mended(path, _RAW + 'd.attrs.pop("aoi"); ' + _WRITE_RAW)


def rechunk(path: ScenePath) -> str:
    """In chunks of 1024 pixels a side."""
    return _mended(path, _RAW + _WRITE_RAW if path.is_dir() else _TIFF + _WRITE)


def _mended(path: ScenePath, code: str, *values: str) -> str:
    imports = "import sys, numpy, xarray, rioxarray, odc.geo.xr; i, o = sys.argv[1:3]; "
    return _command(imports + code, path, str(path.parent / f"{path.stem}-mended.zarr"), *values)


def _command(code: str, path: ScenePath, *values: str) -> str:
    if not isinstance(path, Path):
        return "copy it to this machine and give that, for which there is a command"
    return shlex.join([sys.executable, "-c", code, str(path), *values])
