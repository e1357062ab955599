"""Progress on standard error: a live bar where a terminal is there, plain log lines where not."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Called as often as the work likes."""

    def __call__(self, done: int, total: int, note: str = "", /) -> None:
        """`note`: what else there is to say of this moment."""


LOG_EVERY = 10.0
"""Seconds between two plain log lines."""


def say(line: str) -> None:
    """One line of news."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


@contextmanager
def show_progress(title: str, unit: str) -> Iterator[Progress]:
    """Show how far `title` has come, with rate and time left, while the block runs."""
    with _bar(title, unit) if sys.stderr.isatty() else _log(title, unit) as progress:
        yield progress


@contextmanager
def _bar(title: str, unit: str) -> Iterator[Progress]:
    # Here, not at the top: rich takes longer to import than `rsup --help` takes to answer.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}  {{task.fields[rate]}}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=False) as bar:
        task = bar.add_task(title, total=None, rate="", note="")

        def progress(done: int, total: int, note: str = "", /) -> None:
            speed = bar.tasks[task].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:.3g}/s" if speed else "", note=note)

        yield progress


@contextmanager
def _log(title: str, unit: str) -> Iterator[Progress]:
    start = last = time.monotonic()
    first: int | None = None

    def progress(done: int, total: int, note: str = "", /) -> None:
        nonlocal last, first
        now = time.monotonic()
        first = done if first is None else first  # a resumed run starts with some already done
        if done < total and now - last < LOG_EVERY:
            return
        last = now
        rate = (done - first) / max(now - start, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        say(f"{title}: {done}/{total} {unit}, {rate:.3g}/s{left}{', ' if note else ''}{note}")

    yield progress
