"""Python's collector while libraries are imported; what malloc is told is measured in benchmarks/memory.py."""

import gc

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
