"""What Gofer refuses to do, each with a message that says what to change."""

from typing import Self


class GoferError(Exception):
    """Base of every refusal."""


class SettingError(GoferError):
    """A setting has a value that is not allowed."""


class HandlerError(GoferError):
    """A handler is declared in a way that cannot work."""


class StartFailed(GoferError):
    """The system could not give what a start needs; all that was started has been stopped again."""


class InvalidJob(GoferError, ValueError):
    """A job cannot be submitted as it is described."""

    def at(self, place: int) -> Self:
        """Return the same of the job at this place, from 0, of those that were submitted together."""
        return type(self)(f"{self} - at `$[{place}]`")


class JobNotFound(GoferError):
    """No job has this id: it never existed, or it finished long ago and was deleted."""


class JobDeleted(JobNotFound):
    """The job was there, but finished long ago and was deleted."""


class InvalidKey(GoferError, ValueError):
    """An idempotency key is not one."""


class KeyReused(GoferError):
    """The idempotency key came with another request before."""


class UnknownMessage(GoferError, TypeError):
    """The actor has no answer to a message of this type."""


class CapacityReached(GoferError):
    """As many jobs are pending as the capacity allows."""


class Draining(GoferError):
    """The service is stopping and takes no new job."""


class IllegalMove(GoferError):
    """The job's status, or a newer attempt, does not allow this move."""


class StorageFailed(GoferError):
    """The database could not be opened, read or written; nothing was stored, unless a subclass says so."""


class OutcomeInDoubt(StorageFailed):
    """The database failed in a way that leaves unknown whether the message was stored."""
