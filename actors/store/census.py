"""The census: how many jobs there are of each type and status, and how long they waited and ran lately.

Why it is in memory: kept in the file, it would cost each commit a row for each type in it. So a start counts
again, in one pass over an index (0.2 s for a million jobs); that is the only thing in a start that takes
longer the more jobs there are. After that each commit's moves are counted when they are durable, so that a
rollback has nothing to undo.

Why its memory is bounded: at most MOST_TYPES types are counted apart, and the jobs of all others together. A
type joins only while no job is counted in common, so that each job is taken away where it was added; when
there is no room, the types of which no job is left make some.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from actors.handlers import Handlers
from actors.lifecycle import Job, Status
from actors.messages import Complete, Fail, ListTypes, Outcome
from actors.store.changes import Changes
from actors.store.meter import OTHER, Meter, Series

MOST_TYPES: Final = 10_000
#: What one attempt counts in a mean.
WEIGHT: Final = 0.125
#: The outcomes of attempts that were not interrupted.
OWN_ENDS: Final = (Complete, Fail)


class JobType(msgspec.Struct, frozen=True, kw_only=True):
    """A type of job, as it is shown."""

    #: None stands for all types that are not counted apart.
    type: str | None
    has_handler: bool
    jobs: Mapping[Status, int]
    #: Since the oldest pending job, delayed or not, was submitted.
    oldest_pending_seconds: float | None = None
    #: Lately; None if none was seen since the start of the process.
    mean_waiting_seconds: float | None = None
    mean_running_seconds: float | None = None


class Tally:
    """The jobs of one type."""

    __slots__ = ("jobs", "running", "series", "waiting")

    def __init__(self, series: Series) -> None:
        self.jobs = dict.fromkeys(Status, 0)
        self.waiting: float | None = None
        self.running: float | None = None
        self.series = series

    @property
    def is_needed(self) -> bool:
        """Whether there are jobs of this type."""
        return any(self.jobs.values())

    def note_waiting(self, before: Job, claimed: Job) -> None:
        """Note how long a job has waited since it was due; where that is not known, it was begun before."""
        since = before.run_at or (None if before.attempts else before.created_at)
        if since is not None and claimed.started_at is not None:
            # The wall clock may have been set back since then.
            seconds = max(0.0, (claimed.started_at - since).total_seconds())
            self.series.waiting.observe(seconds)
            self.waiting = _mean(self.waiting, seconds)

    def note_running(self, end: Outcome) -> None:
        """Note how long an attempt took."""
        if end.seconds is not None:
            self.series.running.observe(end.seconds)
            self.running = _mean(self.running, end.seconds)


class Census:
    """Counts the jobs; used in the JobStore's thread alone."""

    def __init__(self, stored: Iterable[tuple[str, str, int]], handlers: Handlers) -> None:
        """Begin with what is stored: how many of which type and status."""
        self._handlers = handlers
        self.meter = Meter(handlers.types)
        self._tallies: dict[str, Tally] = {}
        #: What is counted in common; None while that was never needed.
        self._others: Tally | None = None
        for job_type, status, jobs in stored:
            self._tally(job_type).jobs[Status(status)] += jobs

    def note(self, changes: Changes) -> None:
        """Count what has become durable."""
        for move in changes.moves:
            before, after, cause, event = move.before, move.after, move.cause, move.event
            tally = self._tallies.get(after.type) or self._tally(after.type)
            tally.jobs[after.status] += 1
            tally.series.events[event] += 1
            if before is not None:
                tally.jobs[before.status] -= 1
                if event == "started":  # Cheaper than to ask for a member of an enumeration.
                    tally.note_waiting(before, after)
                elif isinstance(cause, OWN_ENDS):
                    tally.note_running(cause)
        for job_type, status in changes.deleted:
            self._tally(job_type).jobs[status] -= 1

    def page(
        self, query: ListTypes, oldest: Callable[[str], datetime | None], now: datetime
    ) -> list[JobType]:
        """Return the types that are known, by name, and last what is counted in common.

        `oldest` tells when the oldest pending job of a type was submitted.
        """
        stored = (job_type for job_type, tally in self._tallies.items() if tally.is_needed)
        names = sorted(name for name in {*stored, *self._handlers.types} if name > query.after)
        found = [self._shown(name, oldest, now) for name in names[: query.limit]]
        if len(found) < query.limit and self._others is not None and self._others.is_needed:
            found.append(JobType(type=None, has_handler=False, jobs=self._others.jobs.copy()))
        return found

    def _shown(self, name: str, oldest: Callable[[str], datetime | None], now: datetime) -> JobType:
        tally = self._tallies.get(name) or Tally(Series())
        since = oldest(name) if tally.jobs[Status.PENDING] else None
        return JobType(
            type=name,
            has_handler=self._handlers.knows(name),
            jobs=tally.jobs.copy(),
            oldest_pending_seconds=_rounded(
                None if since is None else max(0.0, (now - since).total_seconds())
            ),
            mean_waiting_seconds=_rounded(tally.waiting),
            mean_running_seconds=_rounded(tally.running),
        )

    def _tally(self, job_type: str) -> Tally:
        """Return where the jobs of this type are counted."""
        found = self._tallies.get(job_type)
        if found is not None:
            return found
        if self._others is None or not self._others.is_needed:
            if len(self._tallies) >= MOST_TYPES:
                self._tallies = {name: tally for name, tally in self._tallies.items() if tally.is_needed}
            if len(self._tallies) < MOST_TYPES:
                return self._tallies.setdefault(job_type, Tally(self.meter.series(job_type)))
        if self._others is None:
            self._others = Tally(self.meter.series(OTHER))
        return self._others


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _mean(before: float | None, seconds: float) -> float:
    return seconds if before is None else before + (seconds - before) * WEIGHT
