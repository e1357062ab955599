"""What QGIS, conda or PostGIS leave in the environment: the same bytes as without it, or a sentence before the work."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from rsup.models.base.errors import RsupError
from rsup.pipeline import environment
from rsup.pipeline.environment import check_libraries, settle
from rsup.pipeline.scenes.scene import Scene


@pytest.fixture
def leftovers(tmp_path: Path) -> dict[str, str]:
    """An old proj.db, data of no GDAL, a driver that is none, packages that are none."""
    old = tmp_path / "old"
    old.mkdir()
    with sqlite3.connect(old / "proj.db") as database:
        database.execute("CREATE TABLE metadata (key TEXT, value TEXT)")
        rows = [("DATABASE.LAYOUT.VERSION.MAJOR", "1"), ("DATABASE.LAYOUT.VERSION.MINOR", "0")]
        database.executemany("INSERT INTO metadata VALUES (?, ?)", rows)
    database.close()
    (old / "gdal_Bad.so").write_bytes(b"no library")
    for name in ("rasterio", "numpy", "distributed"):
        (old / name).mkdir()
        (old / name / "__init__.py").write_text("raise ImportError('of another program')")
    (old / "gdalrc").write_text("[configoptions]\nGDAL_SKIP=COG\n")
    folder = str(old)
    return {"PROJ_DATA": folder, "PROJ_LIB": folder, "GDAL_DATA": folder, "GDAL_DRIVER_PATH": folder,
            "PYTHONPATH": folder, "GDAL_SKIP": "COG", "GDAL_CONFIG_FILE": str(old / "gdalrc"),
            "GDAL_TIFF_OVR_BLOCKSIZE": "64", "GDAL_TIFF_ENDIANNESS": "BIG", "CPL_DEBUG": "ON",
            "GTIFF_WRITE_IMAGE_STRUCTURE_METADATA": "NO", "OSR_WKT_FORMAT": "WKT1"}  # fmt: skip


def of_session(leader: int) -> list[str]:
    """What still runs of a session, by the process that began it; not Python's tracker, which waits for its last."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    # One that is ending has no command any more: its memory is given back, and it is no zombie yet.
    return [line for line in found if line and "resource_tracker" not in line]


@pytest.mark.slow
def test_the_mosaic_is_the_same_and_nothing_is_said(
    make_scene: Callable[..., Scene], leftovers: dict[str, str], tmp_path: Path
) -> None:
    scene = make_scene(np.arange(3 * 64 * 70, dtype=np.uint16).reshape(3, 64, 70) + 1000)
    found = {}
    for name, more in (("clean", {}), ("left", leftovers)):
        command = [sys.executable, "-P", "-m", "rsup.pipeline.cli", "upscale", str(scene.path), "--scale", "4"]
        options = ["--model", "nearest", "--device", "cpu", "-o", str(tmp_path / name)]
        errors = tmp_path / "errors"
        with (  # a file, for a pipe would only end with the last process that has it
            open(errors, "w") as file,
            subprocess.Popen(
                [*command, *options], env=os.environ | more, stderr=file, start_new_session=True
            ) as process,
        ):
            process.wait(timeout=240)
        said = errors.read_text()
        assert process.returncode == 0, said
        assert of_session(process.pid) == [], "something outlived the command"
        assert all(line.startswith(("upscale:", "overviews:", "COG:")) for line in said.splitlines())
        files = [path for path in (tmp_path / name).rglob("*") if path.is_file() and ".rsup" not in path.parts]
        found[name] = {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files}
    assert found["left"] == found["clean"] and len(found["clean"]) > 4


def test_what_says_how_files_are_reached_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"GDAL_HTTP_PROXY": "http://p:1", "CPL_AWS_CREDENTIALS_FILE": "/c", "AWS_REGION": "x", "HOME": "/h"}
    for name, value in {**kept, "GDAL_DATA": "/d", "PROJ_DATA": "/d", "GTIFF_POINT_GEO_IGNORE": "TRUE"}.items():
        monkeypatch.setenv(name, value)
    settle()
    assert {name: os.environ.get(name) for name in kept} == kept
    assert not {"GDAL_DATA", "PROJ_DATA", "GTIFF_POINT_GEO_IGNORE"} & set(os.environ)


def test_builds_without_data_of_their_own_keep_what_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "DATA", {"PROJ_DATA": ("rasterio/nothing/proj.db",), "GDAL_DATA": ("nobody/x",)})
    for name in ("PROJ_DATA", "GDAL_DATA", "PROJ_LIB"):
        monkeypatch.setenv(name, "/d")
    settle()
    assert os.environ["PROJ_DATA"] == os.environ["GDAL_DATA"] == "/d" and "PROJ_LIB" not in os.environ


def test_packages_of_others_are_looked_at_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = str(Path(environment.__file__).parents[2])
    monkeypatch.setattr(sys, "path", [str(tmp_path), own, *sys.path])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), "", own]))
    settle()
    assert sys.path[0] == own and sys.path[-1] == str(tmp_path) and os.environ["PYTHONPATH"] == own


def test_what_cannot_work_is_refused_first() -> None:
    check_libraries("EPSG:32633")
    with pytest.raises(RsupError, match="GDAL or PROJ cannot write EPSG:99999 here .*: install rasterio and pyproj"):
        check_libraries("EPSG:99999")
    code = "from rsup.pipeline.environment import check_libraries as c; c('EPSG:32633')"
    skipped = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"GDAL_SKIP": "COG"}, capture_output=True, text=True
    )
    assert "GDAL or PROJ cannot write EPSG:32633 here" in skipped.stderr.splitlines()[-1]
