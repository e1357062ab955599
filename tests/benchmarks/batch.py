"""What `rsup batch` costs beside the work, and what ten thousand units take to plan and to look at; run by hand.

`python tests/benchmarks/batch.py records` makes an archive of 10,000 finished units that has no pixels, and a catalogue
of a year over it: seconds and memory of `batch plan`, afresh and finished, and of `batch status`.
`python tests/benchmarks/batch.py run [UNITS] [MODEL]` (200, default) does units of 256 px on the demonstration's own
servers, each in a month of its own; then a few with new workers for each. The work is what `fetch.run` and `upscale`
take with workers that stand; batch's own cost is everything else between the first and the last line of `batch run`:
asking the catalogue, choosing items, records, leases, ledgers, joining the collection, publishing, dropping scenes,
writing the collection. It is given in seconds by the clock, which other load on the machine stretches, and in seconds
of CPU of the command and its workers. Starting workers once, and what `batch run` imports, are neither.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psutil

from rsup.pipeline.batch import run as running
from rsup.pipeline.batch.job import load_job
from rsup.pipeline.batch.records import Record, claim, write_record
from rsup.pipeline.demo.archive import make_archive
from rsup.pipeline.demo.servers import published, serve_assets, serve_stac
from rsup.pipeline.demo.session import JUNE, moved
from rsup.pipeline.workers.local import local_client

SIDE = 1.0
"""Degrees of an item's footprint, about a tile's."""


def main() -> None:
    """See the module."""
    with tempfile.TemporaryDirectory() as folder:
        if sys.argv[1:2] == ["records"]:
            records(Path(folder))
        elif sys.argv[1:2] == ["run"]:
            work(Path(folder), *sys.argv[2:])
        else:
            sys.exit(__doc__)


def write_job(folder: Path, catalog: str, model: str, **said: object) -> Path:
    """A job in TOML."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in {"output": str(folder / "out"), **said}.items()]
    lines += ["[fetch]", f"catalog = {json.dumps(catalog)}", "max_cloud = 100"]
    lines += ["[upscale]", "scale = 4", f"model = {json.dumps(model)}", 'device = "cpu"']
    path = folder / "job.toml"
    path.write_text("\n".join(lines))
    return path


def records(folder: Path) -> None:
    """Plan and look at ten thousand units."""
    collection, items = year_of((12.0, 51.0, 17.0, 54.6))
    with serve_stac([collection], items) as catalog:
        job = write_job(
            folder, catalog, "nearest", bbox=[13.0, 52.0, 15.4, 53.1], dates="2024-01-01/2024-12-31", cells=512
        )
        loaded = load_job(job)
        units = loaded.units()
        say(f"{len(units):,} units of {len(loaded.places):,} cells, {len(items):,} items")
        command("plan, nothing done", "plan", job)
        claim(loaded.output, loaded.identity())
        catalogue = running.Catalogue(loaded)
        for unit in units:
            ids = tuple(sorted(item.id for item in catalogue.items(unit)))
            record = Record(state="done", sources=ids, model=loaded.upscale_plan.model.sha256)
            write_record(loaded.output / unit.path, record)
        command("plan, all done", "plan", job)
        command("status, all done", "status", job)
        command("status with a map", "status", job, "--page", str(folder / "map.html"))


def year_of(bbox: tuple[float, float, float, float]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A collection, and an item of every degree every five days."""
    west, south, east, north = bbox
    items = []
    for number in range(73):
        day = date(2024, 1, 1) + timedelta(5 * number)
        for row in range(int(north - south) + 1):
            for col in range(int(east - west) + 1):
                items.append(item(f"33U{chr(65 + row)}{chr(65 + col)}", day, west + col * SIDE, south + row * SIDE))
    extent = {"spatial": {"bbox": [list(bbox)]}, "temporal": {"interval": [["2024-01-01T00:00:00Z", None]]}}
    said = {"type": "Collection", "stac_version": "1.0.0", "id": "sentinel-2-l2a", "description": "A year."}
    return said | {"license": "other", "extent": extent, "links": []}, items


def item(tile: str, day: date, west: float, south: float) -> dict[str, Any]:
    """One tile on one day, as Earth Search lists it."""
    east, north = west + SIDE + 0.1, south + SIDE + 0.1
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    name = f"S2A_{tile}_{day:%Y%m%d}_0_L2A"
    keys = ("red", "green", "blue", "nir", "scl")
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "properties": {
            "datetime": f"{day}T10:10:31Z",
            "platform": "sentinel-2a",
            "eo:cloud_cover": 10.0,
            "s2:processing_baseline": "05.10",
            "grid:code": f"MGRS-{tile}",
        },
        "assets": {key: {"href": f"https://example.org/{name}/{key}.tif", "type": "image/tiff"} for key in keys},
        "links": [],
    }


def command(what: str, name: str, job: Path, *options: str) -> None:
    """Run a command of `rsup batch` in a process of its own, and say what it took."""
    start = time.monotonic()
    program = [sys.executable, "-m", "rsup.pipeline.cli", "batch", name, str(job), "--json", *options]
    process = subprocess.Popen(program, stdout=subprocess.PIPE)
    assert process.stdout is not None
    told = json.loads(process.stdout.read())
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    say(
        f"{what}: {time.monotonic() - start:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of CPU, "
        f"{used.ru_maxrss / 1024:.0f} MB; {told['done']:,} done, {told['waiting']:,} waiting, {told['stale']:,} stale"
    )


def work(folder: Path, units: str = "200", model: str = "default") -> None:
    """Do units, and say which share of the time is not theirs."""
    count = int(units)
    archive = make_archive(folder / "archive")
    first = date(2005, 1, 1)
    with serve_assets(archive.root) as assets:
        collections, items = published(archive.root, assets)
        june = [each for each in items if f"{JUNE:%Y%m%d}" in each["id"]]
        months = [date(first.year + n // 12, 1 + n % 12, 12) for n in range(count)]
        sensed = [moved(each, JUNE, day) for day in months for each in june]
        with serve_stac(collections, sensed) as catalog:
            west, south, east, north = archive.bbox
            middle = [(west + east) / 2, (south + north) / 2]
            box = [*middle, middle[0] + 1e-4, middle[1] + 1e-4]
            last = months[-1].replace(day=28)
            job = load_job(write_job(folder, catalog, model, bbox=box, dates=f"{first}/{last}", cells=256))
            timed(f"{count} units, workers kept", lambda: running.run(job, (1, 1)))
            few = months[: max(3, count // 20)]
            again = load_job(
                write_job(
                    folder, catalog, model, output=str(folder / "again"), bbox=box,
                    dates=f"{first}/{few[-1].replace(day=28)}", cells=256,
                )
            )  # fmt: skip
            running.Kept.__call__ = lambda _, pool, threads: local_client(pool, threads)  # type: ignore[method-assign]
            timed(f"{len(few)} units, workers started for each", lambda: running.run(again, (1, 1)))


def timed(what: str, run: Callable[[], dict[str, Any]]) -> None:
    """Run a job in this process, with clocks around fetch and upscale."""
    spent: dict[str, list[tuple[float, float]]] = {"fetch": [], "upscale": []}
    with clock(running.fetch, "run", spent["fetch"]), clock(running, "upscale", spent["upscale"]):
        start = clocks()
        said = run()
        whole = [now - then for now, then in zip(clocks(), start, strict=True)]
    # The first upscale starts the workers, which the command's end stops: as much as the others, no more, is its work.
    first, *others = spent["upscale"]
    starting = [
        max(0.0, ticks - statistics.median(each)) for ticks, each in zip(first, zip(*others, strict=True), strict=True)
    ]
    inside = [sum(ticks) for ticks in zip(*spent["fetch"], *spent["upscale"], strict=True)]
    own = [all_ - work for all_, work in zip(whole, inside, strict=True)]
    work = [ticks - once for ticks, once in zip(inside, starting, strict=True)]
    each = ", ".join(f"{name} {statistics.median(ticks for ticks, _ in times):.2f}" for name, times in spent.items())
    say(
        f"{what}: {said['done']} done in {whole[0]:.1f} s (medians {each}); "
        f"work {work[0]:.1f} s, {work[1]:.1f} of CPU; "
        f"batch's own {own[0]:.1f} s = {100 * own[0] / work[0]:.1f} %, "
        f"{own[1]:.1f} of CPU = {100 * own[1] / work[1]:.1f} %; "
        f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"
    )


WORKERS: dict[int, float] = {}
"""CPU seconds of each worker process, as they were when it was last seen."""
LOOKING = [0.0, 0.0]
"""Seconds, and seconds of CPU, for which `clocks` has looked for them: nobody's cost."""


def clocks() -> tuple[float, float]:
    """Seconds of the clock, and of CPU of this process and of those below it but for the servers."""
    wall, used = time.monotonic(), time.process_time()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "forkserver" in " ".join(child.cmdline()):
                times = child.cpu_times()
                WORKERS[child.pid] = times.user + times.system
    LOOKING[0] += time.monotonic() - wall
    LOOKING[1] += time.process_time() - used
    return time.monotonic() - LOOKING[0], time.process_time() - LOOKING[1] + sum(WORKERS.values())


@contextmanager
def clock(owner: Any, name: str, times: list[tuple[float, float]]) -> Iterator[None]:
    """Whatever is called by that name is timed while the block runs."""
    plain = getattr(owner, name)

    def ticking(*arguments: Any, **options: Any) -> Any:
        start = clocks()
        try:
            return plain(*arguments, **options)
        finally:
            wall, used = clocks()
            times.append((wall - start[0], used - start[1]))

    setattr(owner, name, ticking)
    try:
        yield
    finally:
        setattr(owner, name, plain)


def say(line: str) -> None:
    """A line of the report, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
