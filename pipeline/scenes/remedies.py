"""What to do about a broken line of the scene contract: commands that work, with what rsup installs and nothing else.

In: the path of a store or GeoTIFF, and what only its owner can know as a value to be changed. Out: a command line to
copy, which runs this very Python. A command ending in NAME-mended.zarr leaves the original as it is and writes a store
beside it; the others correct the file's own words.
"""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path

from rsup.models.base.radiometry import ADD_OFFSET, DN_MAX, DN_MIN, NODATA, SCALE_FACTOR
from rsup.pipeline.lattice import GSD

from .remote import ScenePath

Meaning = tuple[float, float, tuple[float, ...]]
"""Scale, offset and nodata of a file's numbers, where its user says them and it does not."""
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
_RAW_TIFF = _TIFF.replace("chunks=", "mask_and_scale=False, chunks=")
"""A GeoTIFF as it is."""
_FLAT = (
    'l = {"lat": "y", "latitude": "y", "lon": "x", "longitude": "x"}; '
    "d = d.rename({a: l[a] for a in l if a in d.dims}).squeeze(drop=True); "
    "d = d if d.rio.crs or max(abs(d.x).max(), abs(d.y).max()) > 360 else d.rio.write_crs(4326); "
)
"""The one moment of a store, on y and x."""
AXES = {
    **{"X": "x", "easting": "x", "lon": "x", "longitude": "x"},
    **{"Y": "y", "northing": "y", "lat": "y", "latitude": "y"},
}
"""What others call y and x."""
_PACKING = {"dtype": "uint16", "scale_factor": SCALE_FACTOR, "add_offset": ADD_OFFSET, "_FillValue": NODATA}
_LOWEST, _HIGHEST = (round(number * SCALE_FACTOR + ADD_OFFSET, 4) for number in (DN_MIN, DN_MAX))
_WRITE = (
    'r = [b for b in d.data_vars if d[b].dtype.kind == "f"]; '
    f"d = d.assign({{b: d[b].clip({_LOWEST}, {_HIGHEST}).drop_attrs() for b in r}}).drop_encoding(); "
    f"d.to_zarr(o, encoding={{b: {_PACKING} for b in r}})".replace("'", '"')
)
"""Reflectance as stored numbers: reflectance * 10000 + 1000, rounded, 0 for NaN."""
_WRITE_RAW = "d.to_zarr(o)"


def name_bands(path: ScenePath, count: int) -> str:
    """Give the `count` bands of a GeoTIFF names, in their order, which the owner knows."""
    code = 'import sys, rasterio; f = rasterio.open(sys.argv[1], "r+"); f.descriptions = sys.argv[2:]; f.close()'
    names = ("red", "green", "blue", "nir", *(f"band{number}" for number in range(5, count + 1)))
    return _command(code, path, *names[:count])


def say_crs(path: ScenePath) -> str:
    """Write the CRS, whose code the owner knows."""
    if path.is_dir():
        return _mended(path, _RAW + "d = d.rio.write_crs(sys.argv[3]); " + _WRITE_RAW, "EPSG:32633")
    code = 'import sys, rasterio; f = rasterio.open(sys.argv[1], "r+"); f.crs = sys.argv[2]; f.close()'
    return _command(code, path, "EPSG:32633")


def georeference(path: ScenePath) -> str:
    """Write where a raster lies, by its west and north edge, which the owner knows."""
    if path.is_dir():
        return place(path)
    affine = f"rasterio.Affine({GSD}, 0, float(sys.argv[2]), 0, -{GSD}, float(sys.argv[3]))"
    code = f'import sys, rasterio; f = rasterio.open(sys.argv[1], "r+"); f.transform = {affine}; f.close()'
    return _command(code, path, "380000", "5800000")


def onto_the_lattice(path: ScenePath, said: Meaning | None = None) -> str:
    """Resample to 10 m pixels on the lattice of the UTM zone in which the image lies."""
    # Nodata is NaN by now; left to itself odc-geo would take reflectance 0 for it, by what the file called nodata.
    nodata = "src_nodata=numpy.nan, dst_nodata=numpy.nan"
    warp = f'd = d.odc.reproject("utm", resolution={GSD}, resampling="bilinear", {nodata}); '
    only = 'd = d[[b for b in d.data_vars if d[b].dtype.kind == "f"]]; '
    return _mended(path, _reflectance(path, said) + (_FLAT if path.is_dir() else "") + only + warp + _WRITE)


def _reflectance(path: ScenePath, said: Meaning | None) -> str:
    """Open a file as reflectance, NaN for nodata, by its own words or by those of its user."""
    if said is None:
        return _STORE if path.is_dir() else _TIFF
    scale, offset, nodata = said
    raw = _STORE.replace("chunks=", "mask_and_scale=False, chunks=") if path.is_dir() else _RAW_TIFF
    there = "".join(f".where(v != {number})" for number in nodata if math.isfinite(number))
    return raw + f"d = d.assign({{b: v{there} * {scale} + {offset} for b, v in d.data_vars.items()}}); "


def turn(path: ScenePath) -> str:
    """Rows from north to south."""
    return _mended(path, _as_it_is(path) + 'd = d.sortby("y", ascending=False); ' + _WRITE_RAW)


def transpose(path: ScenePath) -> str:
    """Dimensions in an order that ends in y and x, whatever these were called."""
    names = f"l = {AXES}; ".replace("'", '"')
    rename = "d = d.rename({a: l[a] for a in l if a in d.dims}); "
    return _mended(path, _RAW + names + rename + 'd = d.transpose(..., "y", "x"); ' + _WRITE_RAW)


def call_dimensions(path: ScenePath, rows: str, columns: str) -> str:
    """Call two dimensions y and x; which is which the owner knows."""
    code = 'd = d.rename({sys.argv[3]: "y", sys.argv[4]: "x"}).transpose(..., "y", "x"); '
    return _mended(path, _RAW + code + _WRITE_RAW, rows, columns)


def choose(path: ScenePath, dimension: str) -> str:
    """One place along a dimension, which the owner chooses."""
    return _mended(path, _RAW + f"d = d.isel({dimension}=[int(sys.argv[3])]); " + _WRITE_RAW, "0")


def name_dimension(path: ScenePath, dimension: str) -> str:
    """Names along a dimension, in their order, which the owner knows."""
    code = f'd = d.assign_coords({{"{dimension}": sys.argv[3].split(",")}}); '
    return _mended(path, _RAW + code + _WRITE_RAW, "red,green,blue")


def shift(path: ScenePath) -> str:
    """Let x and y of a store name centres, where they name top left corners."""
    return _mended(path, _RAW + f"d = d.assign_coords(x=d.x + {GSD / 2:g}, y=d.y - {GSD / 2:g}); " + _WRITE_RAW)


def place(path: ScenePath) -> str:
    """Write x and y of a store from its north-west corner (metres east, metres north), which the owner knows."""
    x = f'float(sys.argv[3]) + {GSD} * numpy.arange(0.5, d.sizes["x"])'
    y = f'float(sys.argv[4]) - {GSD} * numpy.arange(0.5, d.sizes["y"])'
    code = f'd = d.drop_vars(["x", "y"], errors="ignore").assign_coords(x={x}, y={y}); '
    return _mended(path, _RAW + code + _WRITE_RAW, "380000", "5800000")


def interpolate(path: ScenePath, said: Meaning | None = None) -> str:
    """Bring a store whose pixels are unevenly spaced onto the lattice."""
    x = f"numpy.arange({GSD} * numpy.ceil(d.x.min().item() / {GSD}) + {GSD / 2}, d.x.max().item(), {GSD})"
    y = f"numpy.arange({GSD} * numpy.floor(d.y.max().item() / {GSD}) - {GSD / 2}, d.y.min().item(), -{GSD})"
    only = 'd = d[[b for b in d.data_vars if d[b].dtype.kind == "f"]].chunk(x=-1, y=-1); '
    return _mended(path, _reflectance(path, said) + only + f"d = d.interp(x={x}, y={y}).chunk({_PARTS}); " + _WRITE)


def leave_out(path: ScenePath, name: str) -> str:
    """All but one array or band."""
    return _mended(path, _as_it_is(path) + "d = d.drop_vars(sys.argv[3]); " + _WRITE_RAW, name)


def forget_aoi(path: ScenePath) -> str:
    """Without the attribute `aoi`."""
    return _mended(path, _RAW + 'd.attrs.pop("aoi"); ' + _WRITE_RAW)


def from_netcdf(path: ScenePath) -> str:
    """The variables of a netCDF file as a store, with all that it says of them.

    Where x and y do not say what they are, GDAL takes no notice of them and turns the rows: it is kept from that.
    """
    rows = 'import os, rasterio; os.environ["GDAL_NETCDF_BOTTOMUP"] = "NO"; '
    code = f"d = rioxarray.open_rasterio(i, decode_times=False, chunks={_PARTS}); "
    code += 'd = d if hasattr(d, "data_vars") else d.to_dataset(name=d.name); '
    axes = '{a: rasterio.open(f"netcdf:{i}:{a}").read().ravel() for a in "xy"}'
    return _mended(path, rows + code + f"d = d.assign_coords({axes}); " + _WRITE_RAW)


def unpack(path: Path, inside: str) -> str:
    """Unpack a zip beside itself, and give what lies `inside` it, "" for the whole."""
    target = path.parent / f"{path.stem}-unpacked"
    command = shlex.join([sys.executable, "-m", "zipfile", "-e", str(path), str(target)])
    return f"unpack it: {command} ; and give {shlex.quote(str(target / inside))}"


def rechunk(path: ScenePath) -> str:
    """In chunks of 1024 pixels a side."""
    return _mended(path, _as_it_is(path) + _WRITE_RAW)


def _as_it_is(path: ScenePath) -> str:
    return _RAW if path.is_dir() else _RAW_TIFF


def _mended(path: ScenePath, code: str, *values: str) -> str:
    imports = "import sys, numpy, xarray, rioxarray, odc.geo.xr; i, o = sys.argv[1:3]; "
    return _command(imports + code, path, str(path.parent / f"{path.stem}-mended.zarr"), *values)


def _command(code: str, path: ScenePath, *values: str) -> str:
    if not isinstance(path, Path):
        return "copy it to this machine and give that, for which there is a command"
    return shlex.join([sys.executable, "-c", code, str(path), *values])
