"""The protocol: every message that an actor of Gofer understands."""

import re
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta, Raw
from msgspec.structs import force_setattr

from actors import opaque
from actors.errors import InvalidJob
from actors.lifecycle import ID, Job, Status

LONGEST_TYPE: Final = 255
#: What is not printable: control characters, invisible ones and spaces other than the common one. Python's
#: `isprintable` would change with its version, and no schema could say it.
UNSEEN: Final = (
    r"\x00-\x1f\x7f-\xa0\xad\u061c\u1680\u180e\u2000-\u200f\u2028-\u202f"
    r"\u205f-\u206f\u3000\ufeff\ufff9-\ufffb"
)
#: What a type looks like, as any language's regular expressions have it.
PRINTABLE: Final = f"^ *[^{UNSEEN} ][^{UNSEEN}]*$"
#: Python alone has halves of surrogate pairs besides.
IS_PRINTABLE: Final = re.compile(rf" *[^{UNSEEN}\ud800-\udfff ][^{UNSEEN}\ud800-\udfff]*")
MOST_RETRIES: Final = 1000
LONGEST_DELAY: Final = 10 * 365 * 86400


class Message(msgspec.Struct, frozen=True):
    """Base of all messages: small and immutable."""

    #: Bytes that it takes while it is queued, about; 0 for all that are small.
    size: ClassVar[int] = 0


# To any actor.


class Ping(Message, frozen=True):
    """Ask whether the actor runs; answered with the thread that it runs on."""


# To the JobStore, from a submitter.


class Submit(Message, frozen=True, forbid_unknown_fields=True):
    """Store a pending job and hand it to the channel; answered with the Job, without its payload.

    Raises InvalidJob, CapacityReached, Draining or StorageFailed, and then nothing was stored; only after an
    OutcomeInDoubt that is unknown.
    """

    type: Annotated[
        str,
        Meta(
            description="Which handler runs it: 1 to 255 printable characters, not only spaces.",
            extra_json_schema={"minLength": 1, "maxLength": LONGEST_TYPE, "pattern": PRINTABLE},
        ),
    ]
    #: Any JSON value; kept as a msgspec.Raw of its bytes, which a caller may also pass.
    payload: Any = Raw(b"{}")
    #: How often a failed attempt is followed by another; None leaves it to the handler and the settings.
    max_retries: Annotated[int, Meta(ge=0, le=MOST_RETRIES)] | None = None
    delay: Annotated[
        float, Meta(ge=0, le=LONGEST_DELAY, description="Seconds before which the job is not run.")
    ] = 0.0

    def __post_init__(self) -> None:
        is_text = isinstance(self.type, str) and IS_PRINTABLE.fullmatch(self.type)
        if not is_text or len(self.type) > LONGEST_TYPE:
            raise InvalidJob(
                f"`type` must be a string of 1 to {LONGEST_TYPE} printable characters, not only spaces"
            )
        retries, delay = self.max_retries, self.delay
        if retries is not None and not (type(retries) is int and 0 <= retries <= MOST_RETRIES):
            raise InvalidJob(f"`max_retries` must be a whole number from 0 to {MOST_RETRIES}")
        if not (isinstance(delay, int | float) and 0 <= delay <= LONGEST_DELAY):
            raise InvalidJob(f"`delay` must be from 0 to {LONGEST_DELAY} seconds")
        try:
            force_setattr(self, "payload", self._opaque())
        except ValueError as error:
            raise InvalidJob(f"`payload` is not JSON that can be kept: {error}") from None

    @property
    def size(self) -> int:  # type: ignore[override]
        """Bytes of the payload, and what a message takes besides."""
        return len(self.payload) + 1000

    def _opaque(self) -> Raw:
        return opaque.encode(self.payload)


class Get(Message, frozen=True):
    """Answered with the Job, payload and result included. Raises JobNotFound."""

    id: str
    #: Without it those two, which may be large, are not read for this.
    is_whole: bool = True


class ListJobs(Message, frozen=True, forbid_unknown_fields=True):
    """Answered with a list of Jobs, without payloads and results.

    Raises JobNotFound if `after` is not an id; the job itself may have been deleted since.
    """

    status: Annotated[Status | None, Meta(description="Only jobs with this status.")] = None
    type: Annotated[str | None, Meta(description="Only jobs of this type.")] = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="At most this many jobs.")] = 1000
    after: Annotated[
        Annotated[str, Meta(pattern=ID)] | None,
        Meta(description="Only jobs that come after the one with this id, in the order asked for."),
    ] = None
    order: Annotated[
        Literal["oldest", "newest"], Meta(description="The order of submission, or its reverse.")
    ] = "oldest"


class ListTypes(Message, frozen=True, forbid_unknown_fields=True):
    """Answered with a list of JobTypes: those that have jobs or a handler, by name, after this one."""

    limit: Annotated[int, Meta(ge=1, le=1000, description="At most this many types.")] = 1000
    after: Annotated[str, Meta(description="Only types that come after this one, by name.")] = ""


class Cancel(Message, frozen=True):
    """Cancel a job: a pending one immediately, a processing one when its handler next yields.

    Answered with the Job, which in the second case is still processing. Raises JobNotFound, StorageFailed,
    or IllegalMove if the job is finished.
    """

    id: str


class Retry(Message, frozen=True):
    """Make a failed or cancelled job pending again; answered with the Job.

    Raises JobNotFound, CapacityReached, Draining, StorageFailed, or IllegalMove if the job is neither.
    """

    id: str


class Await(Message, frozen=True):
    """Answered with the Job once it is finished, or as it then is when the service stops or hands over.

    Raises JobNotFound.
    """

    id: str


# To the JobStore, from a Worker. How an attempt ended is told, not asked: the JobStore sees to it that it is
# stored, even if the disk is full for a while, and refuses it with IllegalMove if the attempt is not the
# current one.


class OfRun(Message, frozen=True, kw_only=True):
    """What is about one run of a job; by its name alone, so that it comes behind all other fields."""

    #: The number of the Run that was sent. An attempt that was given back is counted again under its old
    #: number, so that alone would let what is told late of one run end the next. None: whichever it is.
    run: int | None = None


class Begin(OfRun, frozen=True):
    """Say that a job was taken out of the channel and its attempt begins."""

    id: str
    attempt: int


class Timed(OfRun, frozen=True, kw_only=True):
    """What may say how long a handler took."""

    #: By which the JobStore sees how many jobs of this type it may send ahead, and what is usual.
    seconds: float | None = None


class Outcome(Timed, frozen=True):
    """How an attempt of a job ended."""

    id: str
    attempt: int


class Complete(Outcome, frozen=True):
    """End an attempt with its result: any JSON value, kept as a msgspec.Raw of its bytes.

    Raises ValueError for what is not JSON.
    """

    result: Any

    def __post_init__(self) -> None:
        if type(self.result) is not Raw:
            force_setattr(self, "result", opaque.encode(self.result))


class Fail(Outcome, frozen=True):
    """End an attempt with an error; the job is tried again if it has retries left."""

    error: str
    #: Where it was raised, cut to a bounded length.
    traceback: str | None = None


class CutOff(Outcome, frozen=True):
    """End an attempt that its executor has lost, perhaps while it ran; it counts, but uses no retry."""

    reason: str


class Release(Outcome, frozen=True):
    """Give a job back as if its attempt had not begun."""


class Cancelled(Outcome, frozen=True):
    """End an attempt because its handler was closed on request."""


class Progress(Message, frozen=True):
    """Say how far the running attempt is, from 0 to 1."""

    id: str
    value: float


# To the JobStore, from the wiring.


class RecoverCrashed(Message, frozen=True):
    """Make the jobs pending, or failed, that were running when an earlier process crashed.

    Answered with how many jobs are pending; while the disk is full, that is done as soon as there is space.
    """


class Drain(Message, frozen=True):
    """Act on a drain that has begun: take back what lies in the channel, and answer every Await."""

    #: And each that comes later; not at the beginning of a hand-over, as running jobs may still finish here.
    answers_awaits: bool = True


# To the JobStore, from itself.


class DeleteExpired(Message, frozen=True):
    """Delete some of the jobs that finished too long ago; tells whether more may be left."""


class Resume(Message, frozen=True):
    """Try again what could not be stored."""


class SweepAwaits(Message, frozen=True):
    """Forget each Await whose asker has given up."""


class Due(Message, frozen=True, gc=False):
    """A pending job may run. One is kept for each pending job, so the GC is not to visit it."""

    id: str
    type: str
    #: The job's `run_at`, by which is seen whether it is this wait that is over.
    run_at: datetime | None = None


# To a Worker, through the channel.


class Run(Message, frozen=True):
    """Run this job, which carries its payload: taken out of the channel, it is the Worker's own."""

    job: Job
    #: Not given to another in this process.
    number: int | None = None

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id
