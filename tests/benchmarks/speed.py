"""Time of a 512 x 512 tile: the shipped students beside the published one; run by hand.

All on one core in float32, in turn, so that a busy machine slows all of them alike; medians over the rounds.
"""

import statistics
import sys
import time

import torch

from rsup.models.networks.slimdiffsr.student import Student
from rsup.models.upscaler import load

ROUNDS = 5


def main() -> None:
    """Print the times and how many times faster the shipped students are."""
    torch.set_num_threads(1)
    tile = torch.rand(1, 3, 512, 512) * 2 - 1
    networks = {"published, 58 M": (Student().eval().to(memory_format=torch.channels_last), tile)}
    for scale in (4, 8):
        upscaler = load("default", scale)
        networks[upscaler.descriptor.name] = (upscaler.network, tile[..., : 512 // scale, : 512 // scale])
    times: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for _ in range(ROUNDS + 1):
            for name, (network, image) in networks.items():
                start = time.perf_counter()
                network(image.contiguous(memory_format=torch.channels_last))
                times[name].append(time.perf_counter() - start)
    # The first round also fetches kernels and memory.
    medians = {name: statistics.median(each[1:]) for name, each in times.items()}
    slowest = medians["published, 58 M"]
    for name, median in medians.items():
        sys.stdout.write(f"{name:16} {1000 * median:8.0f} ms  {slowest / median:6.1f} times as fast\n")


if __name__ == "__main__":
    main()
