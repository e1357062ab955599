"""Giving finished outputs their names, so that no kill tears them: all are of one run, or those of the run before stay.

In: a ledger, and each finished output with the name it shall have. A record precedes the first rename and another
follows the last; a run that is killed between them is ended by the next one (`settle`), whatever that was asked. What
is visible meanwhile is whole and of one run; where the last name (a store's) is there, all are.
"""

from __future__ import annotations

import os
from pathlib import Path

from rsup.models.base import files as atomic
from rsup.models.base.errors import OutputError
from rsup.models.base.files import aside, writing
from rsup.pipeline.ledger import Ledger

_BEGUN = "publishing"
"""Key of the record before the first rename: which names will have been replaced."""
PUBLISHED = "published"
"""Key of the record after the last one. What then stands aside is only waiting to be removed."""


class Publication:
    """The outputs of one run on their way to their names. Every method raises OutputError where the disk refuses."""

    def __init__(self, ledger: Ledger, moves: dict[Path, Path], *, overwrite: bool) -> None:
        """`moves`: finished path to final path, in the order in which they appear. `overwrite`: may names be taken?"""
        self.ledger = ledger
        self.moves = moves
        self.overwrite = overwrite

    def settle(self) -> bool:
        """End what a killed run has left, before anything else is done; whether it had begun to publish and not ended.

        Where no publication can be ended, for the ledger knows of none or a finished output is gone, what stands aside
        goes back to the name that has been empty since; two things that claim one name are left to the user.
        """
        done = self.ledger.done()
        if PUBLISHED in done:
            return self._tidy()
        if _BEGUN in done and all(map(_either_stands, self.moves.items())):
            self._move()
            return True
        hidden = [final for final in self.moves.values() if os.path.lexists(aside(final))]
        empty = [final for final in hidden if not os.path.lexists(final)]
        if not empty:
            return False
        if empty != hidden:
            taken = next(final for final in hidden if final not in empty)
            raise OutputError(
                f"{aside(taken)} and {taken} both stand, and no ledger says which is right: move one of them away"
            )
        for final in empty:
            with writing(aside(final), OutputError):
                atomic.refuse_links(aside(final), inside=False)
                os.rename(aside(final), final)
                atomic.sync(final.parent)
        return False

    def publish(self) -> None:
        """Give every output its name; what stands there is replaced only with `overwrite`, and only by all of them."""
        standing = self.standing()
        if gone := [fresh for fresh in self.moves if not os.path.lexists(fresh)]:
            raise OutputError(f"{gone[0]} was finished and has been taken away: pass --overwrite to start afresh")
        for final in standing:
            clear(aside(final))  # without a record, nothing that anybody waits for
        self.ledger.record(_BEGUN, "done", replaced=[final.name for final in standing])
        self._move()

    def standing(self) -> list[Path]:
        """The names that are taken; raises OutputError where they may not be."""
        standing = [final for final in self.moves.values() if os.path.lexists(final)]
        if standing and not self.overwrite:
            raise OutputError(f"{standing[0]} exists already; choose another --output or pass --overwrite")
        return standing

    def _move(self) -> None:
        replaced = self._replaced()
        late = [
            final
            for fresh, final in self.moves.items()
            if os.path.lexists(fresh)
            and os.path.lexists(final)
            and (final.name not in replaced or os.path.lexists(aside(final)))
        ]
        if late and not self.overwrite:
            raise OutputError(
                f"{late[0]} has come while a finished output waited for that name; move it away, or pass --overwrite"
            )
        if late:
            for final in late:
                _remove(aside(final))
            self.ledger.record(_BEGUN, "done", replaced=sorted({*replaced, *(final.name for final in late)}))
        with writing(next(iter(self.moves.values())), OutputError, inside=True, goes_on=True):
            atomic.publish(self.moves)
        self.ledger.record(PUBLISHED, "done")
        self._tidy()

    def _tidy(self) -> bool:
        """Remove what has been replaced; whether there was any."""
        left = [aside(final) for final in self.moves.values() if final.name in self._replaced()]
        left = [path for path in left if os.path.lexists(path)]
        for path in left:
            _remove(path)
        return bool(left)

    def _replaced(self) -> list[str]:
        return (self.ledger.info(_BEGUN).replaced or []) if _BEGUN in self.ledger.done() else []


def _either_stands(move: tuple[Path, Path]) -> bool:
    return any(map(os.path.lexists, move))


def _remove(path: Path) -> None:
    try:
        atomic.remove(path)
    except OSError as error:
        raise OutputError(
            f"{path}, which has been replaced, cannot be removed ({error.strerror}): remove it"
        ) from error


def clear(path: Path) -> None:
    """Remove what a killed run left under a hidden name; raises OutputError for a link there, or a refusal."""
    with writing(path, OutputError, inside=True):
        atomic.clear(path)


def own(path: Path, *, inside: bool = True) -> None:
    """Raise OutputError where a link, pipe or device stands in what is the command's own."""
    with writing(path, OutputError, inside=True):
        atomic.refuse_links(path, inside=inside)
