"""An archive from `sbatch` to a browser, on a Slurm of two nodes on loopback; run by hand.

`python tests/benchmarks/archive_on_slurm.py FOLDER [STAC_BROWSER]` makes the demonstration's archive, serves it,
submits the recipe's array of two tasks, one a node, cancels one in the middle and puts it back, draws the map of the
archive, and upscales one of its scenes by workers that are jobs on both nodes. Chromium then takes pictures of the map,
of a mosaic's page and, where STAC_BROWSER is a build of radiantearth/stac-browser, of the collection in it. All of it
is on loopback. Needs Debian's slurmctld, slurmd, slurm-client, munge and chromium.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from glob import glob
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "helpers"))

import slurm  # noqa: E402 # of the tests' helpers
from browsers import CHROMIUM  # noqa: E402

from rsup.pipeline.demo.archive import make_archive  # noqa: E402
from rsup.pipeline.demo.servers import published, serve_assets, serve_stac  # noqa: E402
from rsup.pipeline.demo.session import JUNE, MAY, job_of, moved  # noqa: E402

RECIPES = HERE.parents[1] / "recipes" / "cluster" / "slurm"
PROGRAM = [sys.executable, "-m", "rsup.pipeline.cli"]


def main(folder: Path, browser: Path | None = None) -> None:
    """See the module."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    archive = make_archive(folder / "archive")
    job, output = folder / "job.toml", folder / "mosaics"
    shutil.rmtree(output, ignore_errors=True)
    with serve_assets(archive.root) as assets, slurm.cluster(("node1", "node2")) as cluster:
        collections, items = published(archive.root, assets)
        may = [moved(item, JUNE, MAY) for item in items if f"{JUNE:%Y%m%d}" in item["id"]]
        with serve_stac(collections, [*items, *may]) as catalog:
            text = job_of(archive, output, catalog).replace("[fetch]", "keep_scenes = true\n\n[fetch]", 1)
            job.write_text(text)
            submit(cluster, folder, job, output)
        rsup("batch", "status", job, "--page", folder / "map.html", "--json")
        share(cluster, folder, min(output.glob("2024-06/*/*.zarr"), key=lambda path: len(path.name)))
    pictures(folder, browser)


def submit(cluster: slurm.Slurm, folder: Path, job: Path, output: Path) -> None:
    """The array of the recipe; its second task is cancelled once it has begun a unit, and put back."""
    options = ("--array=1-2", "--exclusive", f"--chdir={folder}", "--export=ALL,OMP_NUM_THREADS=1")
    array = cluster.submit(*options, RECIPES / "archive.sbatch", job)
    say(f"$ sbatch --array=1-2 --exclusive recipes/cluster/slurm/archive.sbatch {job}")
    until(lambda: set(cluster.states(array).values()) == {"RUNNING"}, cluster)
    say("$ squeue\n" + cluster.run("squeue", "--array", "--format=%.10i %.14j %.8T %N"))
    log = folder / f"rsup-archive-{array}_2.log"
    until(lambda: glob("*/*/unit.json", root_dir=output) and log.exists() and "fetch" in log.read_text(), cluster)
    cluster.run("scancel", f"{array}_2")
    say(f"$ scancel {array}_2")
    until(lambda: cluster.states(array)[f"{array}_2"] == "CANCELLED", cluster)
    cluster.run("scontrol", "requeue", f"{array}_2")
    say(f"$ scontrol requeue {array}_2")
    cluster.wait_each(array, {f"{array}_1": "COMPLETED", f"{array}_2": "COMPLETED"}, 1200)
    for task in (1, 2):
        shown = cluster.run("scontrol", "show", "job", f"{array}_{task}").split()
        say(", ".join(word for word in shown if word.startswith(("JobId", "JobState", "NodeList", "Restarts"))))


def share(cluster: slurm.Slurm, folder: Path, scene: Path) -> None:
    """One mosaic by a Dask cluster over both nodes."""
    environment = os.environ | cluster.environment | {"DASK_CONFIG": str(RECIPES)}
    asked: list[object] = ["upscale", scene, "--scale", 4, "--chunk", 64, "-o", folder / "shared"]
    asked += ["--cluster", "slurm", "--workers", 2]
    shutil.rmtree(folder / "shared", ignore_errors=True)
    say(f"$ rsup {' '.join(map(str, asked))}")
    environment["DASK_JOBQUEUE__SLURM__JOB_EXTRA_DIRECTIVES"] = "['--exclusive']"
    with subprocess.Popen([*PROGRAM, *map(str, asked)], env=environment, stderr=subprocess.DEVNULL) as process:
        seen: set[str] = set()
        while process.poll() is None:
            seen |= set(cluster.run("squeue", "--noheader", "--states=R", "--format=%N").split())
            time.sleep(0.2)
    say(f"exit code {process.returncode}; workers ran on {', '.join(sorted(seen))}")


def pictures(folder: Path, browser: Path | None) -> None:
    """What a browser shows of it, as PNG in `folder`."""
    if CHROMIUM is None:
        say("Chromium is not installed: no pictures")
        return
    if browser is not None:
        shutil.copytree(browser, folder / "browser", dirs_exist_ok=True)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        page = min((folder / "mosaics").glob("2024-06/*/*.html")).relative_to(folder)
        wanted = {"map": f"{root}/map.html", "page": f"{root}/{page}"}
        if browser is not None:
            at = quote(f"{root}/mosaics/collection.json".replace("://", ":/", 1), safe=":/")
            wanted["collection"] = f"{root}/browser/index.html#/external/{at}"
        for name, address in wanted.items():
            shot = folder / f"{name}.png"
            asked = [CHROMIUM, "--headless=new", "--no-sandbox", "--hide-scrollbars", "--window-size=1280,1000"]
            asked += [f"--user-data-dir={folder}/profile", "--virtual-time-budget=20000", f"--screenshot={shot}"]
            subprocess.run([*asked, address], check=True, capture_output=True, timeout=150)
            say(f"{shot}: {address}")
        server.shutdown()


def rsup(*words: object) -> None:
    """A command and what it says."""
    say(f"$ rsup {' '.join(map(str, words))}")
    done = subprocess.run([*PROGRAM, *map(str, words)], stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    say("\n".join(f"{key}: {value}" for key, value in told.items() if value))


def until(what: Callable[[], Any], cluster: slurm.Slurm, seconds: float = 600) -> None:
    """Wait, for so long at most."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            sys.exit(cluster.said())
        time.sleep(0.05)


def say(line: str) -> None:
    """A line of the report, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve(), *map(Path, sys.argv[2:]))
