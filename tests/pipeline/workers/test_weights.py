"""Weights by digest: workers elsewhere have no file of the client's, fetch it once, and take no other for it."""

import hashlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cloudpickle
import pytest
from clusters import collect
from distributed import Client

from rsup.models.base.errors import ModelError
from rsup.models.upscaler import descriptor_of
from rsup.pipeline.workers import tasks
from rsup.pipeline.workers.model import ModelPlugin, worker_model

# Workers cannot import this file: they get copies of its functions, whole, instead of their names.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def loaded(name: str, key: int) -> tuple[str, str]:
    found = worker_model(name).tiles("float32", None).model.descriptor
    return found.sha256, str(found.path)


def set_environment(values: dict[str, str]) -> None:
    import os

    os.environ.update(values)


@pytest.fixture
def cache(client: Client, tmp_path: Path) -> Iterator[Path]:
    """Where the workers keep what they fetch."""
    client.run(set_environment, {"XDG_CACHE_HOME": str(tmp_path / "cache")})
    yield tmp_path / "cache/rsup/weights"
    client.run(set_environment, {"XDG_CACHE_HOME": ""})


def test_weights_travel_once_and_are_kept(client: Client, quick_student: Path, cache: Path, tmp_path: Path) -> None:
    planned = descriptor_of(str(quick_student), 4)
    kept = cache / f"{planned.sha256}.safetensors"
    for run in ("first", "second", "third"):
        plugin = ModelPlugin(run, planned, None)
        with tasks.holding(client, plugin):
            aside = quick_student.rename(tmp_path / "elsewhere.safetensors")  # workers do not see it
            if run == "third":
                client.unpublish_dataset(plugin.weights)  # they do not ask for it either
            done, failed = collect(client, partial(loaded, plugin.name), [0, 1])
            aside.rename(quick_student)
        assert not failed and done == dict.fromkeys((0, 1), (planned.sha256, str(kept)))
        assert [path.name for path in cache.iterdir()] == [kept.name]
        assert not client.list_datasets()
        if run == "first":
            kept.write_bytes(b"torn")  # it is fetched again
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == planned.sha256


def test_a_cache_that_cannot_be_is_done_without(client: Client, quick_student: Path, tmp_path: Path) -> None:
    planned = descriptor_of(str(quick_student), 4)
    (tmp_path / "file").touch()
    client.run(set_environment, {"XDG_CACHE_HOME": str(tmp_path / "file")})
    plugin = ModelPlugin("uncached", planned, None)
    with tasks.holding(client, plugin):
        done, failed = collect(client, partial(loaded, plugin.name), [0])
    client.run(set_environment, {"XDG_CACHE_HOME": ""})
    assert not failed and done[0][0] == planned.sha256 and Path(done[0][1]) != quick_student


def test_what_comes_with_rsup_is_not_sent(client: Client, cache: Path) -> None:
    planned = descriptor_of("default", 4)
    plugin = ModelPlugin("shipped", planned, None)
    with tasks.holding(client, plugin):
        done, _ = collect(client, partial(loaded, plugin.name), [0])
    assert done == {0: (planned.sha256, planned.path)} and not cache.exists()


def test_a_file_that_was_replaced_is_not_offered(client: Client, quick_student: Path) -> None:
    planned = descriptor_of(str(quick_student), 4)
    quick_student.write_bytes(b"another")
    with pytest.raises(ModelError, match="no longer the model"), tasks.holding(client, ModelPlugin("x", planned, None)):
        pass
