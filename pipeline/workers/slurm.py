"""A Dask cluster whose workers are jobs of Slurm: how many in, a connected client out, and no job left when it is over.

What a job asks Slurm for (cores, memory, GPUs, partition, account, time) is dask-jobqueue's to know: its own
configuration file says it, for every program that uses it.
"""

from __future__ import annotations

import logging
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Security
from distributed.exceptions import WorkerStartTimeoutError

from rsup.models.base.errors import ArgumentError, ChunkError
from rsup.models.base.progress import say

from .closed import ClosedScheduler, ClosedWorker
from .pool import check_count
from .standing import check_versions
from .vigil import ATTEMPTS, LOOK, hushed

SETTINGS = "jobqueue.slurm"
"""Where Dask's configuration has what a job asks for."""

PATIENCE = 60.0
"""Seconds in which Slurm's own programs must answer."""


def check_slurm(jobs: int | None, shared: Path) -> None:
    """Raise ArgumentError where jobs of Slurm cannot be started from here; `shared`: a folder that they will see."""
    check_count(jobs)
    if find_spec("dask_jobqueue") is None:
        raise ArgumentError("--cluster slurm starts its workers by dask-jobqueue: install rsup[slurm]")
    if shutil.which("sbatch") is None:
        raise ArgumentError("--cluster slurm: there is no sbatch here; run this where jobs are submitted")
    if shlex.quote(str(shared)) != str(shared):
        raise ArgumentError(
            f"--cluster slurm: {shared} would stand in a job's script; choose an --output without blanks"
        )
    import dask_jobqueue  # noqa: F401  # its defaults join Dask's configuration

    settings = dask.config.get(SETTINGS)
    if lacking := [name for name in ("cores", "memory") if settings[name] is None]:
        raise ArgumentError(
            f"--cluster slurm: Dask's configuration has no {' and no '.join(lacking)} of a job; say it in "
            f"~/.config/dask/jobqueue.yaml, as {SETTINGS}"
        )


@contextmanager
def slurm_client(jobs: int, shared: Path) -> Iterator[Client]:
    """Submit the jobs, wait for the first worker, and cancel them on leaving. `shared`: a folder that all nodes see.

    They speak TLS with credentials made for the run, which lie in `shared`, for this user alone, while it lasts. Raises
    ArgumentError where Slurm refuses such a job, and ChunkError where its jobs end before a worker has come.
    """
    from dask_jobqueue.slurm import SLURMCluster

    arguments = [*dask.config.get(f"{SETTINGS}.worker-extra-args"), "--worker-class", _name_of(ClosedWorker)]
    own = shared / "jobs"
    logs = dask.config.get(f"{SETTINGS}.log-directory") or str(own)
    config = {"distributed.scheduler.allowed-failures": ATTEMPTS - 1}
    with hushed(), dask.config.set(config):
        try:
            shutil.rmtree(own, ignore_errors=True)  # a killed run's
            own.mkdir(0o700)
            cluster = SLURMCluster(
                security=Security.temporary(),
                shared_temp_directory=str(own),
                scheduler_cls=ClosedScheduler,
                worker_extra_args=arguments,
                log_directory=logs,
                silence_logs=logging.CRITICAL,
            )
        except (ValueError, OSError, RuntimeError) as error:  # an interface that is none, an odd figure
            raise ArgumentError(f"--cluster slurm: {SETTINGS} of Dask's configuration does not do ({error})") from error
        with cluster, Client(cluster) as client:
            _try(cluster.job_script())
            cluster.scale(jobs=jobs)
            _wait(client, cluster, logs)
            check_versions(client, "--cluster slurm")
            yield client
        shutil.rmtree(own, ignore_errors=True)  # what jobs have said is kept where the run has failed


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__name__}"


def _try(script: str) -> None:
    """Raise ArgumentError, with its words, where Slurm would not take the job: dask-jobqueue waits for ever then."""
    done = subprocess.run(
        ["sbatch", "--test-only"], input=script, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["it does not say why"]
        raise ArgumentError(f"--cluster slurm: Slurm does not take such a job ({words[0].removeprefix('sbatch: ')})")


def _wait(client: Client, cluster: Any, logs: str) -> None:
    """Until the first worker has come, however long the queue; raise ChunkError where every job has ended before."""
    told = False
    while True:
        with suppress(WorkerStartTimeoutError):
            client.wait_for_workers(1, timeout=LOOK)
            return
        names = [job.job_id for job in cluster.workers.values() if job.job_id]
        if not told and names:
            say(f"waiting for a worker of the Slurm jobs {', '.join(names)}")
            told = True
        if names and not _alive(names):
            raise ChunkError(
                f"the Slurm jobs {', '.join(names)} ended before a worker came: read what they said in {logs}, "
                "mend it, and run the same command again"
            )


def _alive(jobs: list[str]) -> bool:
    """Whether one of the jobs waits or runs; yes where Slurm does not say."""
    line = ["squeue", "--noheader", "--format=%T", "--jobs", ",".join(jobs)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=PATIENCE)
    return bool(done.stdout.strip()) or (done.returncode != 0 and "Invalid job id" not in done.stderr)
