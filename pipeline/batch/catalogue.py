"""What a catalogue has for each unit now: asked once an interval, for the ground of the whole job.

So that a job of thousands of cells asks a few questions, and a rerun that finds nothing new asks no more. The next
interval may be asked for while units of this one are done.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from functools import cached_property
from threading import Thread

from rsup.models.base.errors import CatalogError
from rsup.pipeline.jobs.fetch import MARGIN, query_of
from rsup.pipeline.lattice import Window
from rsup.pipeline.public import public_address
from rsup.pipeline.sources.footprint import Box, box_of
from rsup.pipeline.sources.stac.catalog import Listing, NothingFoundError, Query, ask
from rsup.pipeline.sources.stac.items import ItemReference, LeftOut

from .cells import Cell
from .job import Job
from .units import Interval, Unit, intervals_of, of_days, units_of


class Catalogue:
    """The job's catalogue. Every method raises CatalogError where it cannot be asked or answers nonsense."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._asked: Interval | None = None
        self._listing: Listing | None = None
        self._ahead: tuple[Interval, Future[Listing]] | None = None
        self._queries: dict[tuple[Cell, Interval], Query] = {}

    def units(self) -> list[Unit]:
        """Every unit of the job: those of its intervals, or, of acquisitions, the days on which a cell was sensed."""
        if not self.job.by_acquisition:
            return self.job.units()
        found = []
        for cell in self.job.places:
            try:
                items = self.items(Unit(cell, self.job.whole_time()))
            except NothingFoundError:
                continue
            found += units_of(of_days(item.datetime[:10] for item in items), [cell])
        return sorted(found, key=lambda unit: (unit.interval, unit.cell.name))

    def refuse_nothing(self) -> None:
        """Raise CatalogError where nothing at all is listed over the job's ground, in none of its intervals."""
        intervals = intervals_of(*self.job.days, self.job.interval) if not self.job.by_acquisition else ()
        if not any(self.ask(interval).candidates for interval in intervals or [self.job.whole_time()]):
            first, last = self.job.days
            raise CatalogError(
                f"{public_address(self.job.fetch.catalog)} has no {self.job.fetch.collection} item over the area from "
                f"{first} to {last}: correct area, dates or collection"
            )

    def items(self, unit: Unit) -> list[ItemReference]:
        """The items a unit is made of, best first. Raises NothingFoundError where there is none."""
        return self.ask(unit.interval).choose(self._query_of(unit))

    def left_out(self, unit: Unit) -> list[LeftOut]:
        """The items a unit would be made of as well, had they what it needs. Raises as `items`."""
        return self.ask(unit.interval).left_out(self._query_of(unit))

    def _query_of(self, unit: Unit) -> Query:
        first = self._query(self.job.places[0], unit.interval)
        return replace(self._query(unit.cell, self.job.whole_time()), start=first.start, end=first.end)

    def ask(self, interval: Interval) -> Listing:
        """All items over the job's ground in an interval; the last answer is kept."""
        wanted = self.job.whole_time() if self.job.by_acquisition else interval
        if self._listing is None or self._asked != wanted:
            ahead, self._ahead = self._ahead, None
            found = ahead[1].result() if ahead is not None and ahead[0] == wanted else ask(self._question(wanted))
            self._asked, self._listing = wanted, found
        return self._listing

    def look_ahead(self, interval: Interval) -> None:
        """Begin to ask for an interval; `ask` has the answer, or what it raises. Of acquisitions all is known."""
        if self.job.by_acquisition or self._asked == interval:
            return
        question, answer = self._question(interval), Future[Listing]()

        def find() -> None:
            try:
                answer.set_result(ask(question))
            except BaseException as error:  # whoever asks for the answer raises it
                answer.set_exception(error)

        self._ahead = interval, answer
        # No executor: one would keep a command that is told to stop until the catalogue has answered.
        Thread(target=find, name=f"catalogue, {interval.name}", daemon=True).start()

    def _question(self, interval: Interval) -> Query:
        query = self._query(self.job.places[0], interval)
        return replace(query, box=self._ground, bbox=str(self._ground))

    def _query(self, cell: Cell, interval: Interval) -> Query:
        """About one cell: its ground is worked out once for all intervals, and an interval's time for all cells."""
        if (cell, interval) not in self._queries:
            request = self.job.fetch_request(cell.box, cell.crs, interval)
            self._queries[cell, interval] = query_of(request, cell.window)
        return self._queries[cell, interval]

    @cached_property
    def _ground(self) -> Box:
        """A box in degrees around every cell and the margin that is fetched with it."""
        boxes = []
        for crs in dict.fromkeys(cell.crs for cell in self.job.places):
            windows = [cell.window for cell in self.job.places if cell.crs == crs]
            row, col = min(each.row for each in windows), min(each.col for each in windows)
            height = max(each.stop_row for each in windows) - row
            width = max(each.stop_col for each in windows) - col
            boxes.append(box_of(Window(row, col, height, width).grow(MARGIN), crs))
        middle = boxes[0].centre[0]
        turns = [360 * round((middle - box.centre[0]) / 360) for box in boxes]
        return Box(
            min(box.west + turn for box, turn in zip(boxes, turns, strict=True)),
            min(box.south for box in boxes),
            max(box.east + turn for box, turn in zip(boxes, turns, strict=True)),
            max(box.north for box in boxes),
        )
