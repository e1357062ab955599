"""What other programs leave in the environment (QGIS, conda, PostGIS), kept from the libraries rsup computes with.

`settle` is called before anything but the standard library is imported, in the command and in each worker;
`check_libraries` before the first chunk, for what it could not settle.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from rsup.models.base.errors import RsupError

LIBRARIES = ("GDAL_", "GTIFF_", "TIFF_", "OGR_", "OSR_", "PROJ_", "COG_", "CPL_", "OPJ_", "ESRI_", "USE_TILE_AS_BLOCK")
"""How settings of GDAL and PROJ begin. They change what is read from a file and what is written in one."""

ACCESS = ("GDAL_HTTP", "GDAL_PROXY", "GDAL_CURL_", "GDAL_GSSAPI_", "CPL_AWS_", "CPL_AZURE_", "CPL_GS_", "CPL_GCE_")
"""Those among them that say how a file is reached: proxies, certificates, logins. The user's word counts."""

DATA = {
    "PROJ_DATA": ("rasterio/proj_data/proj.db", "pyproj/proj_dir/share/proj/proj.db"),
    "PROJ_LIB": ("rasterio/proj_data/proj.db", "pyproj/proj_dir/share/proj/proj.db"),
    "GDAL_DATA": ("rasterio/gdal_data",),
    "GDAL_DRIVER_PATH": ("rasterio/gdal_data",),
}
"""Where the libraries' own files lie, and what of them comes with their wheels. Without that the variable stays: a
build of conda's or of the system's is told by it where its own are."""


def settle() -> None:
    """Keep this process, and those it starts, to the packages rsup is installed with and to their own settings."""
    _own_packages_first()
    for name in list(os.environ):
        if name.startswith(LIBRARIES) and not name.startswith(ACCESS) and _comes_with_wheels(name):
            del os.environ[name]


def _own_packages_first() -> None:
    """Look in PYTHONPATH last: what another program put there would otherwise be imported in the place of ours."""
    given = [os.path.abspath(entry) for entry in os.environ.pop("PYTHONPATH", "").split(os.pathsep) if entry]
    own = str(Path(__file__).parents[2])  # rsup itself may have been found there
    if own in given:
        os.environ["PYTHONPATH"] = own
    foreign = [entry for entry in sys.path if entry in given and entry != own]
    sys.path[:] = [entry for entry in sys.path if entry not in foreign] + foreign


def _comes_with_wheels(name: str) -> bool:
    for file in DATA.get(name, ()):
        package, _, inside = file.partition("/")
        spec = find_spec(package)  # without importing it
        if spec is None or not any(
            (Path(folder) / inside).exists() for folder in spec.submodule_search_locations or ()
        ):
            return False
    return True


def check_libraries(crs: str) -> None:
    """Write one pixel in `crs` as the outputs will be; raises RsupError where GDAL or PROJ cannot, with their words."""
    from affine import Affine
    from rasterio.io import MemoryFile
    from rasterio.shutil import copy

    pixel = {"width": 1, "height": 1, "count": 1, "dtype": "uint16", "transform": Affine.scale(10, -10)}
    try:
        with MemoryFile() as plain, MemoryFile() as cog:
            plain.open(driver="GTiff", crs=crs, **pixel).close()
            copy(plain.name, cog.name, driver="COG")
    except Exception as error:  # GDAL's failures share no public class
        raise RsupError(
            f"GDAL or PROJ cannot write {crs} here ({error}): install rasterio and pyproj from their wheels, or let "
            "PROJ_DATA and GDAL_DATA name the data of their own builds"
        ) from error
