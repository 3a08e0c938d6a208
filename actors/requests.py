"""The protocol, continued: what asks for many jobs in one message, or for the same jobs again."""

import re
from hashlib import blake2b
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta
from msgspec.structs import force_setattr

from actors.errors import InvalidJob, InvalidKey
from actors.lifecycle import FIRST_ID, ID, Job
from actors.messages import Message, Submit

#: Jobs that one SubmitAll may have.
MOST_JOBS: Final = 1000
#: What an idempotency key looks like: 1 to 255 visible characters of ASCII.
KEY: Final = r"^[!-~]{1,255}\Z"
#: Bytes of a digest: no two of a million keys have the same, by chance or on purpose.
DIGEST: Final = 16


def digest(data: bytes) -> bytes:
    """Return what stands for these bytes."""
    return blake2b(data, digest_size=DIGEST).digest()


# To the JobStore, from a submitter.


class SubmitAll(Message, frozen=True):
    """Store these jobs, all or none; answered with a list of Jobs in this order, without their payloads.

    Raises as Submit does. Their ids are consecutive numbers.
    """

    jobs: tuple[Submit, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.jobs) <= MOST_JOBS:
            raise InvalidJob(f"1 to {MOST_JOBS} jobs can be submitted together, not {len(self.jobs)}")

    @property
    def size(self) -> int:  # type: ignore[override]
        """Bytes of all of them, as of one."""
        return sum([job.size for job in self.jobs])


class SubmitOnce(Message, frozen=True):
    """Submit under an idempotency key, so that a repeat stores nothing more; answered with Submitted.

    Raises as Submit does, and then the key is still free; InvalidKey; KeyReused if another request came with
    the key; JobDeleted if the jobs were stored, and some of them have been deleted since.
    """

    key: str
    submit: Submit | SubmitAll
    #: What a repeat has again, of which a digest is kept: the bytes of a request, or else the jobs as JSON.
    body: bytes = b""
    #: Why the jobs cannot be submitted, if so. A repeat is answered all the same: it may be that their
    #: handler was removed since.
    refusal: InvalidJob | None = None

    def __post_init__(self) -> None:
        if not re.match(KEY, self.key):
            raise InvalidKey("an idempotency key must be 1 to 255 visible ASCII characters")
        force_setattr(self, "body", digest(self.body or msgspec.json.encode(self.submit)))

    @property
    def size(self) -> int:  # type: ignore[override]
        """Bytes of what it submits."""
        return self.submit.size


class Submitted(NamedTuple):
    """The answer to a SubmitOnce."""

    #: As they are now: one for a Submit, a list for a SubmitAll.
    jobs: Job | list[Job]
    #: Whether an earlier message had stored them.
    is_replayed: bool


# To the JobStore, from a client: one step after the other, so that other messages come between them.


class Many(Message, frozen=True, kw_only=True):
    """One step of what is done to all jobs that match; answered with Done.

    A step is durable when it is answered. So after a crash a repeat from the beginning goes on; and as steps
    follow the ids, no job is dealt with twice, even if it matches again by then.
    """

    #: Of any type, if None.
    type: str | None = None
    #: Jobs from the first after `after` to `last`; None stands for the last there is at the first step.
    after: Annotated[str, Meta(pattern=ID)] = FIRST_ID
    last: Annotated[str, Meta(pattern=ID)] | None = None


class CancelMany(Many, frozen=True):
    """Cancel some jobs, each as Cancel does."""

    status: Literal["pending", "processing"] | None = None


class RetryMany(Many, frozen=True):
    """Make some jobs pending again, each as Retry does.

    Raises CapacityReached or Draining if not even the first of the step can be.
    """

    status: Literal["failed", "cancelled"] | None = None


class Done(NamedTuple):
    """The answer to a CancelMany or a RetryMany."""

    #: How many jobs have moved in this step.
    moved: int
    #: How many run and are cancelled when their handlers next yield.
    requested: int
    #: What asks for the next step; None if this was the last.
    rest: Many | None
