"""What a job is, and the only moves that it can make.

Pure: time and chance are arguments, and each move is a function from the job before to the job after.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType, field
from msgspec.structs import replace

from actors import opaque
from actors.errors import IllegalMove


class Status(StrEnum):
    """Where a job stands."""

    #: In the channel, or due there later. A Worker's claim moves it on; a crash leaves it pending.
    PENDING = "pending"
    #: One Worker is running it. That Worker's outcome moves it on; a crash sends it back to pending.
    PROCESSING = "processing"
    #: Finished with a result.
    COMPLETED = "completed"
    #: Finished with an error; only a requested retry moves it on.
    FAILED = "failed"
    #: Finished on request; only a requested retry moves it on.
    CANCELLED = "cancelled"


FINISHED: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})

#: The legal moves: name → (from any of these, to). Whatever is not here cannot happen.
MOVES: Final[Mapping[str, tuple[tuple[Status, ...], Status]]] = {
    "claim": ((Status.PENDING,), Status.PROCESSING),
    "complete": ((Status.PROCESSING,), Status.COMPLETED),
    "fail": ((Status.PROCESSING,), Status.FAILED),
    "back off": ((Status.PROCESSING,), Status.PENDING),
    "release": ((Status.PROCESSING,), Status.PENDING),
    "recover": ((Status.PROCESSING,), Status.PENDING),
    "cancel": ((Status.PENDING, Status.PROCESSING), Status.CANCELLED),
    "retry": ((Status.FAILED, Status.CANCELLED), Status.PENDING),
}

#: Crashes in a row, each during an attempt of the job, after which it is a suspect, of which one runs at a
#: time; and after which it is the cause if nothing else ran in the last, else runs alone.
SUSPECT: Final = 2
ALONE: Final = 3
#: Seconds that a backoff lasts at most.
LONGEST_BACKOFF: Final = 300.0

#: What an id looks like: 16 hexadecimal digits of a number below 2 to the 63rd.
ID: Final = r"^[0-7][0-9a-f]{15}\Z"
Moment = Annotated[datetime, Meta(tz=True)]


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job as it is stored and shown; a listed one carries neither payload nor result."""

    #: 16 hexadecimal digits that sort in the order in which jobs were accepted.
    id: Annotated[str, Meta(pattern=ID)]
    #: Which handler runs it.
    type: str
    status: Status
    created_at: Moment
    #: How often it was claimed; a claim that a graceful shutdown took back does not count.
    attempts: int
    max_retries: int
    started_at: Moment | None = None
    finished_at: Moment | None = None
    #: Not to be claimed before.
    run_at: Moment | None = None
    last_error: str | None = None
    #: How far the running attempt says it is, from 0 to 1.
    progress: float | None = None
    #: The bytes that came, which JSON embeds as they are.
    raw_payload: Raw | UnsetType = field(default=UNSET, name="payload")
    raw_result: Raw | UnsetType = field(default=UNSET, name="result")

    @property
    def payload(self) -> Any:
        """The payload in plain Python; UNSET if the job carries none.

        Raises msgspec.ValidationError for a number that Python cannot hold, such as 1e400.
        """
        return UNSET if self.raw_payload is UNSET else opaque.decode(self.raw_payload)

    @property
    def payload_size(self) -> int:
        """Bytes of the payload that the job carries; 0 if it carries none."""
        return 0 if self.raw_payload is UNSET else len(self.raw_payload)

    @property
    def result(self) -> Any:
        """The result in plain Python, as `payload`."""
        return UNSET if self.raw_result is UNSET else opaque.decode(self.raw_result)


#: Sorts before every id that is given out.
FIRST_ID: Final = "0" * 16


def new_id(now: datetime, chance: int, last: str) -> str:
    """Return an id that sorts after `last`: 44 bits of milliseconds, then 20 bits of `chance`.

    The chance keeps two services that were started on one machine from giving out the same ids.
    """
    fresh = int(now.timestamp() * 1000) << 20 | chance & 0xFFFFF
    return f"{max(fresh, int(last, 16) + 1):016x}"


def submitted_at(job_id: str) -> float:
    """Return the seconds since 1970 at which a job got this id, as far as that is in it: about a second."""
    return (int(job_id, 16) >> 20) / 1000


def skipped(last: str, chance: int) -> str:
    """Return an id from which a new process goes on, so that no client's old id becomes another job's.

    The jobs after `last` may have been deleted; and where the wall clock was set back, ids follow from
    `last` alone.
    """
    return f"{int(last, 16) + chance:016x}"


def submitted(job_id: str, job_type: str, now: datetime, *, max_retries: int = 0, delay: float = 0.0) -> Job:
    """Return the new job, without its payload; it is not to be claimed for `delay` seconds."""
    return Job(
        id=job_id,
        type=job_type,
        status=Status.PENDING,
        created_at=now,
        attempts=0,
        max_retries=max_retries,
        run_at=now + timedelta(seconds=delay) if delay else None,
    )


def is_due(job: Job, now: datetime) -> bool:
    """Tell whether the job may be claimed already."""
    return job.run_at is None or job.run_at <= now


def claimed(job: Job, now: datetime) -> Job:
    """Return the job as a Worker is running it, one attempt further."""
    status = _moved(job, "claim")
    return replace(job, status=status, attempts=job.attempts + 1, started_at=now, run_at=None)


def completed(job: Job, attempt: int, result: Raw, now: datetime) -> Job:
    """Return the job finished with its result."""
    return replace(job, status=_ended(job, "complete", attempt), raw_result=result, finished_at=now)


def failed(job: Job, attempt: int, error: str, now: datetime) -> Job:
    """Return the job finished with its error."""
    return replace(job, status=_ended(job, "fail", attempt), last_error=error, finished_at=now)


def has_retries_left(job: Job, interruptions: int = 0) -> bool:
    """Tell whether the running attempt may fail without the job failing.

    Of its attempts so many were interruptions, which use no retry: cut off, or crashed.
    """
    return job.attempts - interruptions <= job.max_retries


def backed_off(job: Job, attempt: int, error: str, now: datetime, seconds: float) -> Job:
    """Return the job pending again after a failed attempt, not to be claimed for `seconds`."""
    status = _ended(job, "back off", attempt)
    run_at = now + timedelta(seconds=seconds)
    return replace(job, status=status, last_error=error, run_at=run_at, started_at=None)


def backoff(attempt: int, first: float, chance: float) -> float:
    """Return the seconds to wait after a failed attempt: exponential, with full jitter.

    `first` is the longest wait after the first attempt, `chance` from 0 to 1 how much of it is taken.
    """
    return chance * min(first * 2.0 ** min(attempt - 1, 64), LONGEST_BACKOFF)


def cancelled_while_running(job: Job, attempt: int, now: datetime) -> Job:
    """Return the running job finished on request: its handler was closed, or its attempt failed anyway."""
    return replace(job, status=_ended(job, "cancel", attempt), finished_at=now)


def cancelled(job: Job, now: datetime) -> Job:
    """Return the job finished on request, before a Worker claimed it or after its Worker is gone."""
    return replace(job, status=_moved(job, "cancel"), finished_at=now)


def retried(job: Job) -> Job:
    """Return a finished job pending again, for at least one more attempt; the earlier ones stay counted."""
    return replace(job, status=_moved(job, "retry"), started_at=None, finished_at=None, run_at=None)


def released(job: Job, attempt: int) -> Job:
    """Return the job as it was before its claim: a graceful shutdown uses no attempt up."""
    status = _ended(job, "release", attempt)
    return replace(job, status=status, attempts=job.attempts - 1, started_at=None)


def cut_off(  # noqa: PLR0913 - the attempt, why it ended and what follows
    job: Job, attempt: int, reason: str, now: datetime, seconds: float | None = None, *, at_most_once: bool
) -> Job:
    """Return the job after a stop or the executor cut its attempt off: pending, or failed if it runs once.

    The attempt counts, but uses no retry. The next is not claimed for `seconds`.
    """
    error = f"the attempt was cut off {reason}"
    if at_most_once:
        return failed(job, attempt, f"{error} (GOFER_ON_CRASH=fail)", now)
    run_at = None if seconds is None else now + timedelta(seconds=seconds)
    return replace(
        job, status=_ended(job, "recover", attempt), last_error=error, run_at=run_at, started_at=None
    )


def crashed(job: Job, crashes: int, now: datetime, *, was_alone: bool, at_most_once: bool) -> Job:
    """Return the job after a crash, the last of `crashes` in a row, each during an attempt of it.

    As after a cut off; but a suspect is failed if it `was_alone`: if nothing else can have been running.
    """
    if at_most_once:
        return failed(job, job.attempts, "the process crashed during the attempt (GOFER_ON_CRASH=fail)", now)
    if crashes >= ALONE and was_alone:
        reason = (
            f"the process crashed during each of {crashes} attempts, in the last of which nothing else ran"
        )
        return failed(job, job.attempts, reason, now)
    return replace(job, status=_moved(job, "recover"), started_at=None)


def perhaps_begun(job: Job, now: datetime, *, at_most_once: bool) -> Job:
    """Return a reserved job after the end of its process: its attempt counts, whether it began or not.

    It uses no retry.
    """
    begun = claimed(job, now)
    if at_most_once:
        reason = "the process ended when the attempt had perhaps begun (GOFER_ON_CRASH=fail)"
        return failed(begun, begun.attempts, reason, now)
    return replace(begun, status=_moved(begun, "recover"), started_at=None)


def _moved(job: Job, move: str) -> Status:
    before, after = MOVES[move]
    if job.status not in before:
        allowed = " or ".join(before)
        raise IllegalMove(f"job {job.id} is {job.status}; to {move} it, it must be {allowed}")
    return after


def _ended(job: Job, move: str, attempt: int) -> Status:
    """Guard a move that ends an attempt, so that a late Worker never overwrites a newer one."""
    after = _moved(job, move)
    if job.status is not Status.PROCESSING:
        raise IllegalMove(f"job {job.id} is {job.status}; attempt {attempt} of it has ended already")
    if job.attempts != attempt:
        raise IllegalMove(f"job {job.id} is in attempt {job.attempts}, no longer in {attempt}")
    return after
