"""Python's collector while libraries are imported, and pages by the kernel's own account.

What malloc is told is measured in benchmarks/memory.py.
"""

import gc
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from rsup.pipeline.memory import importing


def test_garbage_is_collected_again_after_an_import_even_one_that_failed() -> None:
    with importing():
        assert not gc.isenabled()
        before = gc.get_stats()
        kept = [[number] for number in range(100_000)]  # collects a hundred times by itself
        assert gc.get_stats() == before
    assert gc.isenabled() and len(kept) == 100_000
    assert gc.get_freeze_count() > 100_000
    gc.unfreeze()
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()
    gc.unfreeze()


@pytest.mark.skipif(platform.libc_ver() < ("glibc", "2.35"), reason="malloc of another library, or an older one's")
def test_freed_arrays_are_there_for_the_next_in_every_thread_until_they_are_given_back() -> None:
    """By the pages that the kernel had to find, and by what is resident."""
    program = """
from concurrent.futures import ThreadPoolExecutor
from resource import RUSAGE_SELF, getrusage
from rsup.pipeline.memory import give_back_memory, keep_for_the_next
{}
def resident(): return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
def one(_): return len(bytearray(b"x") * (68 << 20))
begun = resident()
with ThreadPoolExecutor(1) as pool:
    before = getrusage(RUSAGE_SELF).ru_minflt
    list(pool.map(one, range(16)))
    after = getrusage(RUSAGE_SELF).ru_minflt
kept = resident()
give_back_memory()
print(after - before, kept - begun, resident() - begun)
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GLIBC_", "MALLOC_"))}
    found = []
    for asked in ("", "keep_for_the_next()"):
        ended = subprocess.run(
            [sys.executable, "-c", program.format(asked)], env=environment, check=True, capture_output=True, text=True
        )
        found.append([int(number) for number in ended.stdout.split()])
    (faults, *_), (fewer, kept, left) = found
    assert fewer < faults / 4
    assert kept > 1 << 16 and left < 1 << 14, "kB"


GRANTED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    not GRANTED.exists() or "[never]" in GRANTED.read_text(), reason="this system grants no large pages"
)
def test_large_tensors_lie_in_large_pages() -> None:
    """Half of them at least: a system that is short of memory may refuse some."""
    program = """
from rsup.pipeline.memory import in_large_pages
{}
import re, torch
def large(): return int(re.search(r"AnonHugePages: *([0-9]+) kB", open("/proc/self/smaps_rollup").read())[1])
before = large()
kept = torch.ones(1 << 24)
print(large() - before)
"""
    environment = {
        key: value for key, value in os.environ.items() if key not in ("THP_MEM_ALLOC_ENABLE", "GLIBC_TUNABLES")
    }
    found = []
    for asked in ("", "in_large_pages()"):
        ended = subprocess.run(
            [sys.executable, "-c", program.format(asked)], env=environment, check=True, capture_output=True, text=True
        )
        found.append(int(ended.stdout))
    assert found[1] >= 1 << 15
    if "[madvise]" in GRANTED.read_text():
        assert found[0] < 1 << 15
