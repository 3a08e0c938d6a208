"""The meter: what happened to jobs since the process began, as counters and histograms by type.

The JobStore counts here what has become durable, so nothing is ever taken back. It is in memory alone: all
begins at 0 with each process, as what reads counters expects, and what happened between the last look and a
crash is seen in the jobs only.

A type has a label of its own if it is one of the first MOST_LABELS: those that have a handler, by name, and
then those that were seen first. All others are counted as OTHER, however many there are.

One thread writes, and any may read without a lock: each number and each list is copied in one step. So of a
reading the sum of a histogram may be one observation behind its buckets, and nothing else is inconsistent.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from actors.store.changes import EVENTS

MOST_LABELS: Final = 100
OTHER: Final = "other"
#: Upper bounds in seconds, two a decade, from a millisecond to an hour.
BUCKETS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0)


class Histogram:
    """How many times took how long."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        #: One more than there are buckets: the last is for what took longer.
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds


class Series:
    """What happened to the jobs of one label."""

    __slots__ = ("events", "running", "waiting")

    def __init__(self) -> None:
        self.events = dict.fromkeys(EVENTS, 0)
        self.waiting = Histogram()
        self.running = Histogram()


class Meter:
    """The series by label."""

    def __init__(self, types: Iterable[str]) -> None:
        """Begin with these types, by name, so that they are seen before the first of their jobs."""
        self._series = {job_type: Series() for job_type in sorted(types)[:MOST_LABELS]}

    def series(self, job_type: str) -> Series:
        """Return the series that the type is counted in, which is always the same."""
        found = self._series.get(job_type)
        if found is None:
            label = job_type if len(self._series) < MOST_LABELS else OTHER
            found = self._series.setdefault(label, Series())
        return found

    def read(self) -> list[tuple[str, Series]]:
        """Return all series by their label; from any thread."""
        return list(self._series.items())

    def total(self, event: str) -> int:
        """Return how often that has happened; from any thread."""
        return sum(series.events[event] for _, series in self.read())
