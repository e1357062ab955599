"""An archive from end to end, as `make demo-batch` shows it: a folder in; a job of two months, killed once, done, out.

`python -m rsup.pipeline.demo.session FOLDER`. The job's catalogue has the made archive's June, and one of its passes
again as if it had been in May.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import date
from glob import glob
from pathlib import Path
from typing import Any

from rsup.models.base.errors import RsupError

from .archive import Archive, make_archive
from .run import claim
from .servers import HOST, PYTHON, published, serve_assets, serve_stac

JUNE, MAY = date(2024, 6, 12), date(2024, 5, 12)
PATIENCE = 600.0
"""Seconds in which three units are done on any machine."""

JOB = """\
output = "{output}"
bbox = [{west:.4f}, {south:.4f}, {east:.4f}, {north:.4f}]
dates = "2024-05-01/2024-06-30"
interval = "month"
cells = 96

[fetch]
catalog = "{catalog}"
max_cloud = 30
mask_clouds = true

[upscale]
scale = 4
"""


def run_session(folder: Path) -> dict[str, Any]:
    """Plan, run, kill, look, go on and draw the map, by the public commands. Returns what is done, and where it lies.

    `folder` must be new, empty or an earlier session's, whose mosaics it begins again. Raises RsupError where a command
    fails, which has then said why.
    """
    claim(folder)
    archive = make_archive(folder / "archive")
    job, output = folder / "job.toml", folder / "mosaics"
    shutil.rmtree(output, ignore_errors=True)  # made from a catalogue at another port
    with serve_assets(archive.root) as assets:
        collections, items = published(archive.root, assets)
        may = [moved(item, JUNE, MAY) for item in items if f"{JUNE:%Y%m%d}" in item["id"]]
        with serve_stac(collections, [*items, *may]) as catalog:
            job.write_text(job_of(archive, output, catalog))
            _rsup("plan", job)
            _killed(job, output)
            _rsup("status", job)
            _rsup("run", job)
    told = json.loads(_rsup("status", job, "--page", str(folder / "map.html"), "--json"))
    return {key: told[key] for key in ("units", "done")} | {
        "collection": str(output / "collection.json"),
        "map": told["page"],
        "a_month_in_qgis": str(min(output.glob("*/*.vrt"))),
    }


def job_of(archive: Archive, output: Path, catalog: str) -> str:
    """Over the middle of the landscape: six cells."""
    west, south, east, north = archive.bbox
    wide, high = east - west, north - south
    return JOB.format(
        output=output.resolve(),
        west=west + 0.2 * wide,
        south=south + 0.3 * high,
        east=east - 0.2 * wide,
        north=north - 0.3 * high,
        catalog=catalog,
    )


def moved(item: dict[str, Any], old: date, new: date) -> dict[str, Any]:
    """An item of one day as if it had been sensed on another; its files are the same."""
    text = json.dumps(item | {"assets": {}}).replace(f"{old:%Y%m%d}", f"{new:%Y%m%d}").replace(f"{old}T", f"{new}T")
    said: dict[str, Any] = json.loads(text)
    return said | {"assets": item["assets"]}


def _command(command: str, job: Path, *options: str) -> dict[str, Any]:
    """How a command of `rsup batch` is started, said on standard output."""
    sys.stdout.write(f"$ rsup batch {' '.join((command, str(job), *options))}\n")
    sys.stdout.flush()
    # The servers are on loopback: a proxy that the environment names must not be asked for them.
    direct = {name: f"{os.environ.get(name, '')},{HOST}".lstrip(",") for name in ("NO_PROXY", "no_proxy")}
    return {"args": [*PYTHON, "rsup.pipeline.cli", "batch", command, str(job), *options], "env": os.environ | direct}


def _rsup(command: str, job: Path, *options: str) -> str:
    arguments = _command(command, job, *options)
    done: subprocess.CompletedProcess[str] = subprocess.run(**arguments, stdout=subprocess.PIPE, text=True)
    sys.stdout.write(done.stdout)
    if done.returncode:
        raise RsupError(f"the demonstration stopped: rsup batch {command} failed with exit code {done.returncode}")
    return done.stdout


def _killed(job: Path, output: Path) -> None:
    """Begin the work, and end it without a warning in the middle of a unit; one that is through before stays so."""
    with subprocess.Popen(**_command("run", job), stdout=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + PATIENCE
            while process.poll() is None and time.monotonic() < until:
                begun = {work.parent for work in _below(output, "*/*/.unit")}
                through = {record.parent for record in _below(output, "*/*/unit.json")}
                if len(through) >= 3 and begun - through:
                    sys.stdout.write(f"$ kill -KILL {process.pid}\n")
                    break
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)


def _below(output: Path, pattern: str) -> list[Path]:
    """What matches, of a folder that others write to: pathlib's own glob fails where one of its folders goes away."""
    return [output / name for name in glob(pattern, root_dir=output)]


if __name__ == "__main__":
    try:
        for key, value in run_session(Path(sys.argv[1])).items():
            sys.stdout.write(f"{key.replace('_', ' ')}: {value}\n")
    except RsupError as error:
        sys.exit(str(error))
