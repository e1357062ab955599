#!/bin/sh
# All that only a GPU can show, in under five minutes: `sh tests/benchmarks/gpu.sh [FOLDER]`, in the root of a checkout
# whose packages are installed. Figures go to the terminal, and the mosaics' summaries to FOLDER.
set -eu
out=${1:-$(mktemp -d)}
python=${PYTHON:-python3}
mkdir -p "$out"
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
"$python" -m pytest -q -m gpu -p no:cacheprovider
"$python" -m rsup.pipeline.cli bench --device cuda --json > "$out/bench.json"
cat "$out/bench.json"

# A scene of 4,096 px with the spectrum of land, and its north-west corner.
"$python" - "$out" << 'END'
import sys
sys.path.insert(0, "tests/benchmarks")
from pathlib import Path
from overhead import make_scene
for size in (512, 4096):
    make_scene(Path(sys.argv[1]), size)
END

# One scene on both kinds of device, each in its own arithmetic.
for device in cpu cuda; do
    "$python" -m rsup.pipeline.cli upscale "$out/s512.zarr" --scale 4 --device $device -o "$out/$device" --json > "$out/$device.json"
done
"$python" - "$out" << 'END'
import sys
import numpy as np
import zarr
cpu, cuda = (zarr.open_group(f"{sys.argv[1]}/{device}/s512_x4.zarr", mode="r") for device in ("cpu", "cuda"))
for band in cpu.attrs["bands"]:
    apart = np.abs(cpu[band][:].astype(int) - cuda[band][:])
    print(f"CPU against CUDA, {band}: {apart.max()} at most, {np.sqrt((apart**2.0).mean()):.2f} RMS, in stored numbers")
END

# The first visible card alone, and how busy it is, once a second.
nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits -l 1 > "$out/busy.csv" &
watch=$!
start=$(date +%s)
CUDA_VISIBLE_DEVICES=0 "$python" -m rsup.pipeline.cli upscale "$out/s4096.zarr" --scale 8 --device cuda -o "$out/large" --json > "$out/large.json"
stop=$(date +%s)
kill $watch
"$python" - "$out" $((stop - start)) << 'END'
import sys
from pathlib import Path
seconds, lines = int(sys.argv[2]), Path(sys.argv[1], "busy.csv").read_text().split("\n")
busy, memory = zip(*(map(int, line.split(",")) for line in lines if line.strip()))
size = sum(file.stat().st_size for file in Path(sys.argv[1], "large").rglob("*") if file.is_file())
raw = (4096 * 8) ** 2 * 3 * 2
print(f"x8 of 4,096 px: {seconds} s, {raw / seconds / 1e6:.0f} MB of pixels a second, {size / 1e9:.1f} GB written")
print(f"GPU: busy {sum(busy) / len(busy):.0f} % of the time, {max(memory)} MiB at most")
END
