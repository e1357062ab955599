"""Whether two checkouts make the same of everything, byte by byte; run by hand.

`python tests/benchmarks/same_bytes.py BEFORE AFTER [WORK]`: both checkouts run the same commands on one archive, made
once: fetch (first, median, five bands), upscale (x4, x8, five bands, bicubic), the smoke recipes, `models list|show`,
every `--help`. SHA-256 of every file of every output, and of what is printed but for times and paths of installation,
are compared; what differs is listed, and the exit code says whether anything does. WORK keeps the outputs.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HELP = ("", "fetch", "upscale", "train", "evaluate", "demo", "models", "models list", "models show", "models import")
MADE = """
import sys
from pathlib import Path
from rsup.pipeline.demo.archive import make_archive
made = make_archive(Path(sys.argv[1]), seed=3, size=96)
print(made.bbox if isinstance(made.bbox, str) else ",".join(map(str, made.bbox)))
"""


def python(checkout: Path, *words: object, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run this Python with the packages of a checkout, of which no other can take the place."""
    environ = os.environ | {"PYTHONPATH": str(checkout / ".src"), "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-P", *map(str, words)], cwd=cwd, env=environ, capture_output=True, text=True, check=False
    )


def commands(recipes: Path, archive: Path, bbox: str, images: Path) -> Iterator[tuple[str, list[object]]]:
    """A name for each command, and its words; outputs lie in the working folder."""
    catalog = archive / "catalog.json"
    ground = [f"--bbox={bbox}", "--date", "2024-06", "--catalog", catalog, "--max-cloud", "100", "--json"]
    five = ["--bands", "red,green,blue,nir,swir16"]
    yield "fetch", ["fetch", *ground, "-o", "scene.zarr"]
    yield "fetch-five", ["fetch", *ground, *five, "--mask-clouds", "-o", "five.zarr"]
    yield "fetch-median", ["fetch", *ground, "--composite", "median", "-o", "median.zarr"]
    for name, scene, more in (
        ("x4", "scene.zarr", ["--scale", "4"]),
        ("x8", "scene.zarr", ["--scale", "8", "--chunk", "64"]),
        ("five", "five.zarr", ["--scale", "4", *five]),
        ("bicubic", "scene.zarr", ["--scale", "8", "--model", "bicubic"]),
    ):
        yield f"upscale-{name}", ["upscale", scene, *more, "--device", "cpu", "-o", name, "--json"]
    smoke = ["--set", "loaders=0", "--json"]
    yield (
        "train-teacher",
        ["train", "teacher", "--recipe", recipes / "slimdiffsr/smoke-teacher.toml", "--data", images, "-o", "teacher",
         "--set", "steps=2", "--set", "estimator_steps=1", *smoke],
    )  # fmt: skip
    yield (
        "train-student",
        ["train", "student", "--recipe", recipes / "slimdiffsr/smoke-student.toml", "--data", images, "-o", "student",
         "--set", "teacher=teacher", "--set", "steps=2", *smoke],
    )  # fmt: skip
    yield (
        "train-rsd",
        ["train", "student", "--recipe", recipes / "rsd/smoke.toml", "--data", images, "-o", "rsd",
         "--set", "steps=2", "--set", "train_teacher.steps=2", "--set", "train_teacher.loaders=0", *smoke],
    )  # fmt: skip
    yield "list", ["models", "list", "--json"]
    for model in ("default", "bicubic", "compact-x8", recipes / "slimdiffsr/student-x4.toml"):
        yield f"show-{Path(str(model)).stem}", ["models", "show", model, "--json"]
    for words in HELP:
        yield f"help {words}".strip(), [*words.split(), "--help"]


def run(checkout: Path, folder: Path, archive: Path, bbox: str, images: Path) -> dict[str, str]:
    """Run everything in `folder`: the digest of each file, and of what each command printed and left with."""
    folder.mkdir()
    found = {}
    for name, words in commands(checkout / "recipes", archive, bbox, images):
        done = python(checkout, "-m", "rsup.pipeline.cli", *words, cwd=folder)
        said = re.sub(rf"{re.escape(str(checkout))}|{re.escape(str(folder))}", "HERE", done.stdout)
        said = re.sub(r'"(\w*seconds\w*|took|rate)": [\d.]+', r'"\1": TIME', said)
        found[f"$ {name}"] = f"{done.returncode} {hashlib.sha256(said.encode()).hexdigest()}"
        (folder / f"{name}.out").write_text(said)
        if done.returncode:
            sys.stderr.write(f"{name}: {done.stderr.strip().splitlines()[-1:]}\n")
    for path in sorted(folder.rglob("*")):
        # TensorBoard's events hold the time of day.
        if path.is_file() and path.suffix != ".out" and "tensorboard" not in path.parts:
            data = path.read_bytes()
            if path.name == "ledger.jsonl":  # knows its scene by the times of its files; threads end in any order
                data = b"".join(sorted(re.sub(rb'"scene": "\w{64}"', b"", data).splitlines()))
            found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


def main(before: Path, after: Path, work: Path) -> int:
    """Compare, print, and give the exit code."""
    made = python(after, "-c", MADE, work / "archive", cwd=work)
    if made.returncode:
        raise SystemExit(made.stderr)
    images = work / "images"
    images.mkdir()
    make_images(images)
    both = [
        run(each, work / name, work / "archive", made.stdout.strip(), images)
        for name, each in (("before", before), ("after", after))
    ]
    differing = sorted(name for name in both[0].keys() | both[1].keys() if both[0].get(name) != both[1].get(name))
    sys.stdout.write(json.dumps({"compared": len(both[0]), "differing": differing}, indent=2) + "\n")
    return bool(differing)


def make_images(folder: Path) -> None:
    """Some sharp images of noise in squares, as far apart as images of other places."""
    import numpy as np
    import rasterio

    rng = np.random.default_rng(0)
    for k in range(24):
        profile = {"width": 256, "height": 256, "count": 4, "dtype": "uint8", "crs": "EPSG:32611"}
        place = rasterio.transform.from_origin(500_000 + 1000 * k, 4_000_000, 0.6, 0.6)
        with rasterio.open(folder / f"site-{k}.tif", "w", "GTiff", transform=place, **profile) as file:
            file.write(rng.integers(0, 256, (4, 64, 64), np.uint8).repeat(4, 1).repeat(4, 2))


if __name__ == "__main__":
    old, new, *rest = (Path(word).resolve() for word in sys.argv[1:])
    if rest:
        rest[0].mkdir(parents=True)
        sys.exit(main(old, new, rest[0]))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(old, new, Path(temporary)))
