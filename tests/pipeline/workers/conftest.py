"""Two workers on this machine, as the command starts them."""

from collections.abc import Iterator

import pytest
from distributed import Client

from rsup.pipeline.workers.local import local_client
from rsup.pipeline.workers.pool import Pool


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local_client(Pool("cpu", (None, "7"), 1), threads=2) as connected:
        yield connected
