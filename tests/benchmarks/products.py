"""What a product of full size costs to fetch; run by hand: `python tests/benchmarks/products.py FOLDER`.

Makes a SAFE of 10,980 x 10,980 pixels in FOLDER (2 GB), one band standing for four, and its zips, where they are not
there. Prints a row each: seconds of `rsup fetch`, of its processors, and its most memory; and what the checksums take
of processors, which are compared before anything is written.
"""

import shutil
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
from processes import cost
from safes import write_jp2, write_safe, zipped

from rsup.pipeline.lattice import Window
from rsup.pipeline.sources.products.archive import Archive

SIDE = 10_980
GROUND = Window(-510_000, 50_004, SIDE, SIDE)
BANDS = ("red", "green", "blue", "nir")


def main(folder: Path) -> None:
    """Make what is not there, and measure."""
    folder.mkdir(parents=True, exist_ok=True)
    safe = next(folder.glob("*.SAFE"), None) or made(folder)
    zips = {"a zip that only stores": zipfile.ZIP_STORED, "a zip that compresses": zipfile.ZIP_DEFLATED}
    sources = {"a folder": safe} | {name: folder / f"{method}.SAFE.zip" for name, method in zips.items()}
    sys.stdout.write("| four 10 m bands | wall, s | CPU, s | memory, GB | checksums, s |\n|---|---|---|---|---|\n")
    for name, source in sources.items():
        if not source.exists():
            zipped(safe, source, zips[name])
        checks = "" if source == safe else f"{checksums(source):.1f}"
        fetch = ("fetch", source, "--bands", ",".join(BANDS), "-o", folder / "scene.zarr", "--overwrite")
        spent = cost([sys.executable, "-m", "rsup.pipeline.cli", *fetch])
        sys.stdout.write(f"| {name} | {spent.wall:.0f} | {spent.cpu:.0f} | {spent.memory / 1e3:.2f} | {checks} |\n")
        sys.stdout.flush()
        shutil.rmtree(folder / "scene.zarr")


def made(folder: Path) -> Path:
    """A product whose images are as hard to pack as land is: eight bits a pixel."""
    rng = np.random.default_rng(0)
    fields = np.kron(rng.integers(1500, 4500, (SIDE // 90, SIDE // 90)), np.ones((90, 90), int))
    plane = (fields + rng.normal(0, 60, (SIDE, SIDE)).astype(np.float32)).astype(np.uint16)
    classes = np.full((SIDE // 2, SIDE // 2), 4, np.uint8)
    safe = write_safe(folder, {"red": plane[:64, :64], "scl": classes[:32, :32]}, GROUND)
    images = next(safe.rglob("IMG_DATA"))
    red, scl = (next(images.rglob(f"*_{name}m.jp2")) for name in ("B04_10", "SCL_20"))
    red.unlink()
    scl.unlink()
    write_jp2(red, plane, GROUND, tile=1024)
    write_jp2(scl, classes, GROUND, gsd=20, tile=1024)
    for number in ("B02", "B03", "B08"):
        shutil.copy(red, red.with_name(red.name.replace("B04", number)))
    return safe


def checksums(path: Path) -> float:
    """Seconds of a processor to compare the images of a zip with their checksums."""
    archive, start = Archive(path), time.process_time()
    for folder in archive.folders():
        for name in archive.children(folder)[0]:
            if name.endswith(".jp2"):
                archive.check(f"{folder}/{name}")
    return time.process_time() - start


if __name__ == "__main__":
    main(Path(sys.argv[1]))
