"""The network that workers hold: the planned one, and no other."""

import sys
from functools import partial
from pathlib import Path

import cloudpickle
import pytest
from clusters import collect
from distributed import Client
from safetensors.torch import load_file

from rsup.models.base.errors import ModelError
from rsup.models.upscaler import descriptor_of
from rsup.models.weights_file import read_header, save_weights
from rsup.pipeline.workers import tasks
from rsup.pipeline.workers.model import ModelPlugin, worker_model
from rsup.pipeline.workers.pool import Pool

# Workers cannot import this file: they get copies of its functions, whole, instead of their names.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def load_model(name: str, key: int) -> str:
    return worker_model(name).tiles("float32", None).model.descriptor.sha256


def test_a_worker_loads_the_planned_weights_and_no_others(client: Client, quick_student: Path) -> None:
    """A file that is replaced while the run goes on, or another one on another machine."""
    planned = descriptor_of(str(quick_student), 4)
    plugins = [ModelPlugin(name, planned, Pool("cpu", (None,), 1)) for name in ("same", "other")]
    with tasks.holding(client, plugins[0]):
        assert collect(client, partial(load_model, plugins[0].name), [0]) == ({0: planned.sha256}, {})
    state = {name: tensor + 1e-3 for name, tensor in load_file(quick_student).items()}
    save_weights(quick_student, state, read_header(quick_student)[0])
    with (
        tasks.holding(client, plugins[1]),
        pytest.raises(ModelError, match="not the model this run was planned with"),
    ):
        collect(client, partial(load_model, plugins[1].name), [0])
