"""What is done, what failed and why: an append-only record beside a store that is being written.

In: a fingerprint of the job (anything JSON can hold) and one record a finished or failed chunk. Out: which chunks a
rerun may skip. The file is JSON lines; the first line is the fingerprint. Each line is on the disk (fsync) before
`record` returns, so after a power cut or kill -9 only chunks in flight are missing.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from rsup.models.base.errors import OutputError
from rsup.models.base.files import foreign, refuse_links, sync, writing

from .public import printable, public_text

Status = Literal["done", "failed", "settled"]

LINE = 16 << 20
"""Bytes of the longest line: a fingerprint that names tens of thousands of items."""


class Record(BaseModel):
    """A line of the ledger but the first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    """A chunk, or a step of the whole."""
    status: Status
    reason: str | None = None
    """Of a failure."""
    figures: dict[str, float] | None = None
    """What a step found out."""
    value: str | None = None
    """What was settled for the whole run."""
    replaced: list[str] | None = None
    """Names that outputs had before (see publishing.py)."""


class Ledger:
    """An open ledger, locked against a second writer: `Ledger.open`, then `begin` before anything is recorded.

    Close it or use it as a context manager. One that holds no record when it is closed is removed, and with it the
    folders that were made for it and hold nothing.
    """

    def __init__(self, path: Path, file: IO[bytes], made: list[Path]) -> None:
        self.path = path
        self._file = file
        self._made = made
        self._fingerprint: dict[str, Any] | None = None
        self._records: dict[str, Record] = {}
        self._damage: str | None = None

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """Lock the ledger at `path` and read what it says; it is made where there is none.

        Raises OutputError where another process holds it, where a link or a pipe stands there, and where it cannot be
        written.
        """
        with writing(path, OutputError):
            refuse_links(path, inside=False)  # before it is opened: opening alone can wake a device
            made = _make(path.parent)
            while True:
                try:
                    file = _open(path)
                except FileNotFoundError:  # a run that ended meanwhile has removed the folder that it had made
                    made += _make(path.parent)
                    file = _open(path)
                try:
                    _lock(path, file)
                    # A run that ended meanwhile has removed what was opened here, and a third may have made another.
                    if _is_at(path, file):
                        break
                except BaseException:
                    file.close()
                    raise
                file.close()
        ledger = cls(path, file, made)
        try:
            ledger._read()
        except OSError as error:
            file.close()
            raise OutputError(f"{path} cannot be read ({error.strerror}): choose another output") from error
        return ledger

    def _read(self) -> None:
        """Take in the whole lines; what is no ledger is remembered as damage, and left as it is."""
        whole = 0
        try:
            while (line := self._file.readline(LINE)).endswith(b"\n"):
                if self._fingerprint is None:
                    self._fingerprint = _object(line)
                else:
                    record = Record.model_validate_json(line)
                    self._records[record.key] = record
                whole += len(line)
            if len(line) == LINE:
                raise ValueError("a line does not end")
        except (ValueError, RecursionError) as error:
            self._fingerprint, self._records = None, {}
            first = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else error
            self._damage = str(first)
        else:
            if line:  # without its newline it was being written when the process died: it never counted
                self._file.truncate(whole)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What it was begun with; empty where it was not."""
        return self._fingerprint or {}

    def belongs_to(self, fingerprint: dict[str, Any]) -> bool:
        """Whether it was begun with this fingerprint."""
        return self._fingerprint == _as_read(fingerprint)

    def begin(self, fingerprint: dict[str, Any], *, overwrite: bool = False) -> None:
        """Go on with what was read where it has the same fingerprint or no record; else start afresh with `overwrite`.

        Raises OutputError where the ledger is another run's or damaged, and where the file cannot be written.
        """
        before, fingerprint = self._fingerprint or {}, _as_read(fingerprint)
        if self._damage and not overwrite:
            raise OutputError(
                f"{self.path} is damaged ({self._damage}); pass --overwrite to start afresh, or choose another output"
            )
        if self._records and before != fingerprint and not overwrite:
            differing = sorted(k for k in before.keys() | fingerprint if before.get(k) != fingerprint.get(k))
            raise OutputError(
                f"{self.path.parent} belongs to another run ({', '.join(differing)} differ); "
                "choose another output or pass --overwrite"
            )
        self._fingerprint = fingerprint
        if overwrite or before != fingerprint:
            self.restart()

    def restart(self) -> None:
        """Forget every record: what they spoke of is gone. Raises OutputError where the file cannot be written."""
        fingerprint = self._fingerprint or {}
        self.forget()
        self._fingerprint = fingerprint
        with writing(self.path, OutputError):
            self._append(fingerprint)
            sync(self.path.parent)  # its name too: it may be new

    def forget(self) -> None:
        """Empty the file, which is then removed when it is closed. Raises OutputError where it cannot be written."""
        with writing(self.path, OutputError):
            self._file.truncate(0)
        self._fingerprint, self._records, self._damage = None, {}, None

    def _append(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, sort_keys=True).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def done(self) -> set[str]:
        """Keys whose latest record says done."""
        return {key for key, record in self._records.items() if record.status == "done"}

    def failed(self) -> dict[str, Record]:
        """The latest record of each key that failed."""
        return {key: record for key, record in self._records.items() if record.status == "failed"}

    def settled(self, key: str) -> str | None:
        """What was settled under `key` for the whole run, or None: no chunk or step is done by that."""
        return self._records[key].value if key in self._records else None

    def info(self, key: str) -> Record:
        """The latest record of `key`. Raises KeyError without one."""
        return self._records[key]

    def record(self, key: str, status: Status, *, reason: str | None = None, **info: Any) -> None:
        """Write one record; call it only after what it speaks of is durable. Raises OutputError on a full disk."""
        said = None if reason is None else printable(public_text(reason))
        record = Record(key=key, status=status, reason=said, **info)
        with writing(self.path, OutputError):
            self._append(record.model_dump(exclude_none=True))
        self._records[key] = record

    def close(self) -> None:
        """Release the lock. Closing twice is harmless."""
        with suppress(OSError):  # a line that found no room was reported when it was written
            if not self._file.closed and not self._records and not self._damage and _is_at(self.path, self._file):
                self.path.unlink()
                for folder in self._made:
                    folder.rmdir()
        with suppress(OSError):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _as_read(fingerprint: dict[str, Any]) -> dict[str, Any]:
    """As it will be read back: tuples become lists."""
    return _object(json.dumps(fingerprint))


def _object(line: str | bytes) -> dict[str, Any]:
    """One line of JSON; raises ValueError and RecursionError where it is no object."""
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return found


def _make(folder: Path) -> list[Path]:
    """Make a folder; which ones had to be made, innermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _open(path: Path) -> IO[bytes]:
    """The file itself, never what a link or a second name leads to."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    file = os.fdopen(os.open(path, flags, 0o666), "r+b")
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        file.close()
        raise foreign(path)
    return file


def _lock(path: Path, file: IO[bytes]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(f"another rsup process is writing beside {path}; wait for it or stop it") from error


def _is_at(path: Path, file: IO[bytes]) -> bool:
    """Whether the open file is still the one in the folder."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(file.fileno()))
    return False
