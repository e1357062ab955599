"""Contenders as real processes: turns, a device that is not there, a kill, a package that is missing."""

import os
import signal

import pytest
import torch

from rsup.models.bench import turns
from rsup.models.bench.contender import Where
from rsup.models.show import show_model

CPU = Where(torch.device("cpu"), None, 1)


@pytest.fixture
def seated():
    """`seated(name, where)`: a seat whose process ends with the test."""
    seats = []

    def make(name, where):
        seats.append(turns.seat(name, where))
        return seats[-1]

    yield make
    for each in seats:
        each.process.kill()
        each.process.join()


@pytest.mark.slow
def test_turns_until_it_is_killed(seated):
    taken = seated("x8", CPU)
    (size,) = taken.hear().values()
    shown = show_model("compact-x8")
    assert (size.parameters, size.gmac) == (shown["parameters"], shown["gmac_512"])
    assert taken.take_turn() and taken.take_turn()
    assert [turn.keys() for turn in taken.seconds] == [{"tile"}] * 2
    assert all(0.001 < turn["tile"] < 60 for turn in taken.seconds)
    # Its weights and its largest map at least, and not the whole of Python.
    assert 4 * size.parameters < taken.peak < 2e9
    os.kill(taken.process.pid, signal.SIGKILL)
    assert not taken.take_turn()
    assert "ended with status -9" in taken.why
    assert len(taken.seconds) == 2


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a CUDA device")
def test_what_cannot_be_built_says_why(seated):
    taken = seated("x4", Where(torch.device("cuda"), None, 1))
    assert taken.hear() is None
    assert "no CUDA device here" in taken.why and "\n" not in taken.why


def test_a_package_that_is_not_there(monkeypatch):
    assert turns.missing("x4") is None
    monkeypatch.setattr(turns, "find_spec", lambda package: None)
    assert (turns.missing("x4"), turns.missing("esrgan"), turns.missing("opensr")) == (None, "spandrel", "opensr_model")
