"""Folders for what goes to a store: the same for the same, nobody else's, and gone when they are empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsup.models.base.errors import OutputError
from rsup.pipeline.places.scratch import leave_scratch, own_scratch, scratch


def test_the_same_for_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    folder = scratch("batch", "s3://bucket/archive", {"scale": 4})
    assert folder == scratch("batch", "s3://bucket/archive", {"scale": 4}) and folder.is_relative_to(tmp_path / "t")
    assert folder != scratch("batch", "s3://bucket/archive", {"scale": 8}) and not (tmp_path / "t").exists()
    own_scratch(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "unit").mkdir()
    leave_scratch(folder)
    assert folder.exists()
    (folder / "unit").rmdir()
    leave_scratch(folder)
    assert list((tmp_path / "t").iterdir()) == []
    monkeypatch.delenv("TMPDIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert scratch("batch").is_relative_to(tmp_path / "cache" / "rsup")


def test_a_link_in_its_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = scratch("batch")
    folder.parent.mkdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="a link, pipe or device stands there"):
        own_scratch(folder)
