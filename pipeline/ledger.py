"""What is done, what failed and why: an append-only record beside a store that is being written.

In: a fingerprint of the job (anything JSON can hold) and one record a finished or failed chunk. Out: which chunks a
rerun may skip. The file is JSON lines; the first line is the fingerprint. Each line is on the disk (fsync) before
`record` returns, so after a power cut or kill -9 only chunks in flight are missing.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal, Self

from .errors import OutputError

Status = Literal["done", "failed"]


class Ledger:
    """An open ledger, locked against a second writer. Use `Ledger.open`; close it or use it as a context manager."""

    def __init__(self, path: Path, file: IO[str], records: dict[str, dict[str, Any]]) -> None:
        self.path = path
        self._file = file
        self._records = records

    @classmethod
    def open(cls, path: Path, fingerprint: dict[str, Any], *, overwrite: bool = False) -> Ledger:
        """Start a ledger, or go on with one that has the same fingerprint.

        Raises OutputError where another process holds the ledger, where the fingerprint differs (unless `overwrite`,
        which starts afresh), and where the file cannot be written.
        """
        fingerprint = json.loads(json.dumps(fingerprint))  # as it will be read back: tuples become lists
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}; choose another output") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise OutputError(f"another rsup process is writing beside {path}; wait for it or stop it") from error
        try:
            ledger = cls(path, file, {})
            ledger._load(fingerprint, overwrite)
        except BaseException:
            file.close()
            raise
        return ledger

    def _load(self, fingerprint: dict[str, Any], overwrite: bool) -> None:
        whole, lines = ("", []) if overwrite else self._read()
        if lines and lines[0] != fingerprint:
            differing = sorted(k for k in lines[0].keys() | fingerprint if lines[0].get(k) != fingerprint.get(k))
            raise OutputError(
                f"{self.path.parent} belongs to another run ({', '.join(differing)} differ); "
                "choose another output or pass --overwrite"
            )
        try:
            if not lines:
                self._file.truncate(0)
                self._append(fingerprint)
            else:
                self._file.truncate(len(whole.encode()))
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error
        self._fingerprint = fingerprint
        self._records = {record["key"]: record for record in lines[1:]}

    def _read(self) -> tuple[str, list[dict[str, Any]]]:
        """The file's whole lines, and the objects they hold."""
        self._file.seek(0)
        try:
            text = self._file.read()
            # A line without its newline was being written when the process died: it never counted.
            whole = text[: text.rfind("\n") + 1]
            lines = [json.loads(line) for line in whole.splitlines()]
            if not all(isinstance(line, dict) for line in lines) or not all(
                "key" in line and "status" in line for line in lines[1:]
            ):
                raise ValueError("a line is no record")
        except ValueError as error:  # of the decoder and of JSON as well
            raise OutputError(
                f"{self.path} is damaged ({error}); pass --overwrite to start afresh, or choose another output"
            ) from error
        return whole, lines

    def restart(self) -> None:
        """Forget every record: what they spoke of is gone."""
        self._file.truncate(0)
        self._records = {}
        self._append(self._fingerprint)

    def _append(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, sort_keys=True) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def done(self) -> set[str]:
        """Keys whose latest record says done."""
        return {key for key, record in self._records.items() if record["status"] == "done"}

    def failed(self) -> dict[str, dict[str, Any]]:
        """The latest record of each key that failed."""
        return {key: record for key, record in self._records.items() if record["status"] == "failed"}

    def info(self, key: str) -> dict[str, Any]:
        """The latest record of `key`, with what was recorded beside its status. Raises KeyError without one."""
        return self._records[key]

    def record(self, key: str, status: Status, **info: Any) -> None:
        """Write one record; call it only after what it speaks of is durable. Raises OutputError on a full disk."""
        record = {"key": key, "status": status, **info}
        try:
            self._append(record)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error
        self._records[key] = record

    def close(self) -> None:
        """Release the lock. Closing twice is harmless."""
        with suppress(OSError):  # a line that found no room was reported when it was written
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
