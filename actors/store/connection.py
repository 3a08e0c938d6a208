"""Opening the database: durable settings, one owner, the schema up to date."""

import os
import sqlite3
from typing import Final

from actors.errors import StorageFailed
from actors.store.schema import migrate

#: Seconds to wait at opening for another process that is reading the file.
READER_LEAVES: Final = 5.0
#: Bytes to which the WAL is cut after it grew beyond them, as on a disk that was full for a while.
WAL_LIMIT: Final = 32 * 1024 * 1024


def connect(path: str) -> sqlite3.Connection:
    """Open the database for its one owner. Raises StorageFailed if that cannot be done.

    The connection may be used in another thread than this one, but only in one.
    """
    try:
        _sync(path)
        connection = sqlite3.connect(
            path, timeout=READER_LEAVES, isolation_level=None, check_same_thread=False
        )
    except (OSError, sqlite3.Error) as error:
        raise _cannot_open(path, error) from error
    try:
        if path != ":memory:":
            _make_durable(connection)
        migrate(connection)
    except sqlite3.Error as error:
        connection.close()
        raise _cannot_open(path, error) from error
    return connection


def _sync(path: str) -> None:
    """Make durable what a killed process left in the WAL, before anything of it is read and shown.

    SQLite trusts what it finds there, though a kill during an fsync leaves it in the page cache alone; a
    power cut would then take back what a client has been shown.
    """
    if path == ":memory:":
        return
    try:
        wal = os.open(f"{os.path.realpath(path)}-wal", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(wal)
    finally:
        os.close(wal)


def verify(connection: sqlite3.Connection) -> None:
    """Read all of the file. Raises StorageFailed if it is damaged."""
    try:
        _pragma(connection, "quick_check", None, expected="ok")
    except sqlite3.Error as error:
        connection.close()
        raise StorageFailed(f"the database is damaged: {error}") from error


def _make_durable(connection: sqlite3.Connection) -> None:
    # Exclusive before the first access: the WAL then needs no shared memory, and one connection is
    # all there is. FULL, or a power cut loses commits that were acknowledged (sqlite.org/pragma.html).
    _pragma(connection, "locking_mode", "EXCLUSIVE", expected="exclusive")
    _pragma(connection, "journal_mode", "WAL", expected="wal")
    connection.execute("PRAGMA synchronous = FULL")
    _pragma(connection, "synchronous", None, expected=2)
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")


def _pragma(connection: sqlite3.Connection, name: str, value: str | None, *, expected: str | int) -> None:
    setting = "" if value is None else f" = {value}"
    (actual,) = connection.execute(f"PRAGMA {name}{setting}").fetchone()
    if actual != expected:
        raise sqlite3.OperationalError(f"{name} is {actual}, it must be {expected}")


def _cannot_open(path: str, error: Exception) -> StorageFailed:
    return StorageFailed(f"the database {path!r} cannot be opened: {error}")
