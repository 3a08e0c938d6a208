"""What an error of the storage means, and what becomes of each kind of message when it cannot be stored."""

import sqlite3
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from actors.errors import OutcomeInDoubt, StorageFailed
from actors.messages import (
    Begin,
    Cancel,
    Cancelled,
    Complete,
    CutOff,
    DeleteExpired,
    Drain,
    Fail,
    RecoverCrashed,
    Release,
    Retry,
    Submit,
)
from actors.requests import CancelMany, RetryMany, SubmitAll, SubmitOnce

#: Errors after which it is unknown what is on the disk, so that only a restart can be trusted.
FATAL: Final = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    }
)


class Fate(Enum):
    """What becomes of a message that could not be stored."""

    #: Its asker gets the error.
    REFUSED = auto()
    #: It is tried again later; until then there is no answer.
    KEPT = auto()
    #: The same, but its asker is answered now.
    PROMISED = auto()


class Fates(NamedTuple):
    """What becomes of one kind of message, by what went wrong."""

    #: The disk has no space.
    full: Fate
    #: This very message fails, even alone in its transaction.
    alone: Fate
    #: Nothing is stored any longer: only a restart can tell what the disk holds.
    broken: Fate


R, K, P = Fate.REFUSED, Fate.KEPT, Fate.PROMISED
#: Every message that writes. The others read, and are refused only if reading itself fails.
WRITERS: Final[Mapping[type[Any], Fates]] = {
    # --------------------- full alone broken
    Submit:         Fates(R,   R,    R),
    SubmitAll:      Fates(R,   R,    R),
    SubmitOnce:     Fates(R,   R,    R),
    Cancel:         Fates(R,   R,    R),
    CancelMany:     Fates(R,   R,    R),
    Retry:          Fates(R,   R,    R),
    RetryMany:      Fates(R,   R,    R),
    Begin:          Fates(K,   K,    R),
    Complete:       Fates(K,   K,    R),
    Fail:           Fates(K,   K,    R),
    CutOff:         Fates(K,   K,    R),
    Release:        Fates(K,   K,    R),
    Cancelled:      Fates(K,   K,    R),
    RecoverCrashed: Fates(P,   R,    R),
    Drain:          Fates(K,   R,    R),
    DeleteExpired:  Fates(R,   R,    R),
}  # fmt: skip
READER: Final = Fates(R, R, R)


def fates(message: object) -> Fates:
    """Return what becomes of the message if it cannot be stored."""
    return next((found for kind, found in WRITERS.items() if isinstance(message, kind)), READER)


def is_disk_full(error: BaseException) -> bool:
    """Tell whether the same may succeed later, when there is disk space again."""
    return _code(error) == sqlite3.SQLITE_FULL


def is_fatal(error: BaseException) -> bool:
    """Tell whether nothing that the database says can be trusted after this error."""
    return _code(error) in FATAL or isinstance(error, OutcomeInDoubt)


def not_stored(error: BaseException) -> StorageFailed:
    """Return the refusal of a message of which nothing was stored."""
    return StorageFailed(f"the database failed and nothing was stored: {error}")


def in_doubt(error: BaseException) -> OutcomeInDoubt:
    """Return the refusal of a message that may or may not be on the disk."""
    return OutcomeInDoubt(f"the database is broken; whether this was stored is unknown: {error}")


def _code(error: BaseException) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
