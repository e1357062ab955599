"""A task for workers, and what becomes of it: functions that tests of several modules send."""

import os
import sys
import time

import cloudpickle
from distributed import Client

from rsup.pipeline.workers import tasks

# Workers cannot import this file: they get copies of its functions, whole, instead of their names.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def collect(client: Client, function: object, keys: list[int], in_flight: int = 4) -> tuple[dict, dict]:
    done: dict[int, object] = {}
    failed: dict[int, str] = {}
    copy = cloudpickle.loads(cloudpickle.dumps(function))
    tasks.run(client, copy, keys, in_flight, done.__setitem__, failed.__setitem__)
    return done, failed


def square(key: int) -> int:
    return key * key


def pin(key: int) -> str:
    time.sleep(0.2)  # long enough that both workers get some
    return os.environ.get("CUDA_VISIBLE_DEVICES", "none")
