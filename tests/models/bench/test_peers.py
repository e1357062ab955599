"""The peers' sizes against what is published of them; nothing is allocated."""

import pytest
import torch

from rsup.models.bench.contender import Where
from rsup.models.bench.peers import PEERS

NOWHERE = Where(torch.device("meta"), None, 1)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("esrgan", {"tile": (16.70, 293.7)}),
        ("swinir", {"tile": (11.72, None)}),
        pytest.param(
            "diffusion",
            {"encode": (34.16, 558), "unet": (865.91, 402), "control": (364.23, None), "decode": (49.49, 1257)},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "opensr", {"unet": (113.63, None), "encode": (None, None), "decode": (None, None)}, marks=pytest.mark.slow
        ),
    ],
)
def test_sizes_are_the_published_ones(name, sizes):
    """Millions of parameters, and GMAC for 512 x 512 pixels where they are stated."""
    pytest.importorskip(PEERS[name].package)
    passes = PEERS[name].build(NOWHERE)
    assert passes.keys() == sizes.keys()
    for key, (parameters, gmac) in sizes.items():
        if parameters is not None:
            assert passes[key].parameters / 1e6 == pytest.approx(parameters, abs=0.006)
        if gmac is not None:
            assert passes[key].gmac == pytest.approx(gmac, abs=0.6)


def test_each_row_names_passes_that_are_there():
    """Of the small ones; the others' are named in the test above."""
    for name, contender in PEERS.items():
        steps = {"tile"} if name in ("esrgan", "swinir") else {"encode", "unet", "decode", "control"}
        assert all(row.passes.keys() <= steps for row in contender.rows)
