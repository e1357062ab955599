"""Python's collector while libraries are imported, and pages by the kernel's own account.

What malloc is told is measured in benchmarks/memory.py.
"""

import gc
import os
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
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()


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
