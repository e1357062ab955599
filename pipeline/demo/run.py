"""The demonstration from end to end: a folder, a scale, a size and a seed in; mosaics and their PSNR out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from rsup.models.base.errors import ArgumentError, OutputError, RsupError
from rsup.pipeline.jobs.upscale_plan import SCALES

from .archive import make_archive
from .compare import DATA_RANGE, psnr
from .servers import HOST, PYTHON, serve_archive, start, stop

DATES = "2024-06-01/2024-06-30"
"""What the demonstration fetches: all of the archive but its product of an old baseline."""
SIZES = (32, 2048)
"""Smallest and largest side of the ground, in 10 m pixels."""

SEEDS = 2**32
"""Seeds are below this: what the landscape's hashes keep of one."""

_MARKER = ".rsup-demo"  # says that a folder is the demonstration's own


def run_demo(output: Path, *, scale: int = 8, size: int = 256, seed: int = 0) -> dict[str, Any]:
    """Make an archive of `size` 10 m pixels squared, serve it, fetch and upscale it by the public commands, compare.

    Everything is made in the folder `output`, which must be new, empty or an earlier demonstration's. Returns where
    the outputs are and the PSNR (dB) of each band beside that of classical: bicubic interpolation, held to its scene
    as the mosaic is. Raises an RsupError where a
    command fails; the command has then said why.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise ArgumentError(f"--size {size}: choose {SIZES[0]} to {SIZES[1]} pixels of 10 m")
    if scale not in SCALES:
        raise ArgumentError(f"--scale {scale}: choose {' or '.join(map(str, SCALES))}")
    if not 0 <= seed < SEEDS:
        raise ArgumentError(f"--seed {seed}: choose a whole number from 0 to {SEEDS - 1}")
    began = time.monotonic()
    claim(output)
    archive = make_archive(output / "archive", seed, size)
    scene = output / "scene.zarr"
    with serve_archive(archive.root) as (catalog, _):
        bbox = ",".join(str(edge) for edge in archive.bbox)
        _rsup("fetch", f"--bbox={bbox}", "--date", DATES, "--catalog", catalog, "--mask-clouds", "-o", str(scene))
    mosaic = _upscale(scene, scale, output / "mosaic", "default")
    cog = _only(output / "mosaic", f"*_x{scale}.tif")
    scores = psnr(cog, archive.truth)
    _upscale(scene, scale, output / "classical", "bicubic")
    classical = psnr(_only(output / "classical", f"*_x{scale}.tif"), archive.truth)
    return {
        "model": mosaic["model"],
        "scale": scale,
        "psnr_db": _rounded(scores),
        "psnr_db_classical": _rounded(classical),
        "psnr_peak_reflectance": DATA_RANGE,
        "truth": str(archive.truth),
        "scene": str(scene),
        "cog": str(cog),
        "page": str(cog.with_suffix(".html")),
        "seconds": round(time.monotonic() - began, 1),
    }


def claim(output: Path) -> None:
    """Make `output` the demonstration's own, empty but for outputs that fetch and upscale replace themselves."""
    marker = output / _MARKER
    try:
        if output.exists() and not marker.exists() and any(output.iterdir()):
            raise OutputError(f"{output} holds something else; choose an empty or new folder with --output")
        output.mkdir(parents=True, exist_ok=True)
        marker.touch()
        if (output / "archive").exists():
            shutil.rmtree(output / "archive")
    except OSError as error:
        raise OutputError(f"cannot write in {output}: {error.strerror or error}") from error


def _upscale(scene: Path, scale: int, folder: Path, model: str) -> dict[str, Any]:
    return _rsup("upscale", str(scene), "--scale", str(scale), "--model", model, "-o", str(folder))


def _rsup(command: str, *options: str) -> dict[str, Any]:
    """Run a public command as a user would, its progress and complaints on our standard error; returns its JSON."""
    arguments = [*PYTHON, "rsup.pipeline.cli", command, *options, "--overwrite", "--json"]
    # The servers are on loopback: a proxy that the environment names must not be asked for them.
    direct = {name: f"{os.environ.get(name, '')},{HOST}".lstrip(",") for name in ("NO_PROXY", "no_proxy")}
    process = start(arguments, stdout=subprocess.PIPE, env=os.environ | direct)
    assert process.stdout is not None
    with process.stdout as stream:
        try:
            told = stream.read()
            process.wait()
        finally:
            stop(process)
    if process.returncode:
        raise RsupError(f"the demonstration stopped: rsup {command} failed with exit code {process.returncode}")
    answer: dict[str, Any] = json.loads(told)
    return answer


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise OutputError(f"{folder} has no {pattern}: the mosaic was taken away while the demonstration ran")
    return found[0]


def _rounded(scores: dict[str, float]) -> dict[str, float]:
    return {band: round(value, 2) for band, value in scores.items()}
