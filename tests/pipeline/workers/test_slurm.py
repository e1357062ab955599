"""Where jobs of Slurm cannot be started from: a sentence before anything is. What starts: integration/test_slurm."""

from pathlib import Path

import dask
import pytest

from rsup.models.base.errors import ArgumentError
from rsup.pipeline.workers import slurm
from rsup.pipeline.workers.slurm import check_slurm


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which nothing but an sbatch is."""
    program = tmp_path / "bin/sbatch"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return program


def test_what_is_lacking_is_a_sentence(sbatch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match=r"has no cores and no memory of a job; say it in ~/.config/dask/jobqueue"):
        check_slurm(None, tmp_path)
    with dask.config.set({"jobqueue.slurm.cores": 3}), pytest.raises(ArgumentError, match="has no memory of a job"):
        check_slurm(None, tmp_path)
    with dask.config.set({"jobqueue.slurm.cores": 3, "jobqueue.slurm.memory": "24GB"}):
        check_slurm(2, tmp_path)
        with pytest.raises(ArgumentError, match="--workers 0: at least one"):
            check_slurm(0, tmp_path)
        with pytest.raises(ArgumentError, match="choose an --output without blanks"):
            check_slurm(2, tmp_path / "my mosaic")
    sbatch.unlink()
    with pytest.raises(ArgumentError, match="there is no sbatch here"):
        check_slurm(None, tmp_path)
    monkeypatch.setattr(slurm, "find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=r"by dask-jobqueue: install rsup\[slurm\]"):
        check_slurm(None, tmp_path)
