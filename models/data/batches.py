"""Crops in batches, each a function of its number; read ahead, and by processes that leave signals to their parent."""

from __future__ import annotations

import signal
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rsup.models.base.errors import DataError

from .images import Images


class Batches(Dataset[Tensor]):
    """Item n is batch n of this process: [batch, band, crop, crop], a function of (seed, n, rank) alone."""

    def __init__(self, images: Images, batch: int, seed: int, rank: int = 0) -> None:
        self.images, self.batch, self.seed, self.rank = images, batch, seed, rank

    def __getitem__(self, n: int) -> Tensor:
        rng = np.random.default_rng((self.seed, n, self.rank))
        return torch.from_numpy(np.stack([self.images.draw(rng) for _ in range(self.batch)]))


class Interleaved(Dataset[Tensor]):
    """Item n is item n of one of several sets of batches, which take turns."""

    def __init__(self, sets: Sequence[Batches]) -> None:
        self.sets = sets

    def __getitem__(self, n: int) -> Tensor:
        return self.sets[n % len(self.sets)][n]


def read_ahead(
    batches: Interleaved, numbers: range, loaders: int, device: torch.device
) -> Generator[Tensor | DataError, None, None]:
    """The batches of those numbers, read ahead by `loaders` processes, which are gone once this is closed."""
    reader: Any = iter(
        DataLoader(
            ErrorsAsItems(batches),
            batch_size=None,
            sampler=numbers,
            num_workers=loaders,
            worker_init_fn=_ignore_signals,
            generator=torch.Generator(),
            pin_memory=device.type == "cuda",
        )
    )
    try:
        yield from reader
    finally:
        # A traceback would keep the reader, and the exit would wait for processes that are deaf to its signal.
        if loaders:
            reader._shutdown_workers()


class ErrorsAsItems(Dataset[Tensor | DataError]):
    """Batches that hand a DataError over: a loader's process would raise it wrapped in its own traceback."""

    def __init__(self, batches: Interleaved) -> None:
        self.batches = batches

    def __getitem__(self, n: int) -> Tensor | DataError:
        try:
            return self.batches[n]
        except DataError as error:
            return error


def _ignore_signals(_: int) -> None:
    """For processes that read images: a cluster signals every process of a job, and the run itself says when to end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
