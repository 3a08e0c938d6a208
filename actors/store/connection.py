"""Opening the database: a file that is ours, durable settings, one owner, the schema up to date."""

import contextlib
import os
import sqlite3
from typing import Final

from actors import log
from actors.errors import StorageFailed
from actors.settings import IN_MEMORY
from actors.store.inspection import Found, inspect
from actors.store.location import SUFFIXES, refused
from actors.store.schema import migrate
from actors.store.wal import Wal

#: Seconds to wait at opening for another process that is reading the file.
READER_LEAVES: Final = 5.0
#: Bytes to which the WAL is cut after it grew beyond them, as on a disk that was full for a while.
WAL_LIMIT: Final = 32 * 1024 * 1024
#: The first SQLite with the statements that the schema and the lists are made of.
OLDEST: Final = (3, 38)
#: The modes of a new file, and of one that every user may read.
PRIVATE: Final = 0o600
BY_ALL: Final = 0o004


def connect(database: str, *, is_suspect: bool = False) -> sqlite3.Connection:
    """Open the database for its one owner, and read all of it if `is_suspect`. Raises StorageFailed.

    The connection may be used in another thread than this one, but only in one.
    """
    if sqlite3.sqlite_version_info < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise StorageFailed(f"this Python has SQLite {sqlite3.sqlite_version}; Gofer needs {oldest} or later")
    found = Found(database, is_new=True, wal=Wal()) if database == IN_MEMORY else inspect(database)
    try:
        if database != IN_MEMORY:
            _make_private(found.path)
            _sync(found)
        connection = sqlite3.connect(
            found.path, timeout=READER_LEAVES, isolation_level=None, check_same_thread=False
        )
    except (OSError, sqlite3.Error) as error:
        raise _cannot_open(database, error) from error
    try:
        _prepare(connection, found)
        if is_suspect:
            _verify(connection)
    except sqlite3.Error as error:
        connection.close()
        raise _cannot_open(database, error) from error
    return connection


def _make_private(path: str) -> None:
    """Make a new file readable by its owner alone; SQLite gives its WAL the same mode.

    What an older version made could be read by every user. Files that are open to a group were made so on
    purpose, as none was by default.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE))
    for suffix in SUFFIXES:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if os.stat(f"{path}{suffix}").st_mode & BY_ALL:  # noqa: PTH116
                os.chmod(f"{path}{suffix}", PRIVATE)  # noqa: PTH101
                log.logger("Database").info(
                    "a file that every user could read is now its owner's alone", file=f"{path}{suffix}"
                )


def _sync(found: Found) -> None:
    """Make durable what a killed process left in the WAL, before anything of it is read and shown.

    SQLite trusts what it finds there, though a kill during an fsync leaves it in the page cache alone; a
    power cut would then take back what a client has been shown.
    """
    taken, left, is_damaged, *_ = found.wal
    try:
        wal = os.open(f"{found.path}-wal", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(wal)
    finally:
        os.close(wal)
    if left:
        why = "it is damaged, and jobs may be missing" if is_damaged else "a commit that was broken off"
        log.logger("Database").warning(
            f"a part of the write-ahead log was left out: {why}", frames_taken=taken, frames_left_over=left
        )
    elif taken:
        log.logger("Database").info("read the write-ahead log that a crash left", frames_taken=taken)


def _prepare(connection: sqlite3.Connection, found: Found) -> None:
    # A statement that needs a file for a moment would fail where there is no folder for it.
    connection.execute("PRAGMA temp_store = MEMORY")
    _pragma(connection, "temp_store", None, expected=2)
    if found.path != IN_MEMORY:
        _make_durable(connection)
        if found.is_new:
            # Without a WAL, so that at every moment the file alone shows that it is ours.
            _pragma(connection, "journal_mode", "DELETE", expected="delete")
            migrate(connection)
        _pragma(connection, "journal_mode", "WAL", expected="wal")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # Commits see to that (see checkpoints.py).
    migrate(connection)


def _make_durable(connection: sqlite3.Connection) -> None:
    # Exclusive before the first access: the WAL then needs no shared memory, and one connection is
    # all there is. FULL, or a power cut loses commits that were acknowledged; on macOS an fsync reaches the
    # drive only if it is a full one (sqlite.org/pragma.html).
    _pragma(connection, "locking_mode", "EXCLUSIVE", expected="exclusive")
    for name, value in {"synchronous": 2, "fullfsync": 1, "checkpoint_fullfsync": 1}.items():
        connection.execute(f"PRAGMA {name} = {value}")
        _pragma(connection, name, None, expected=value)


def _verify(connection: sqlite3.Connection) -> None:
    (text,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if text != "ok":
        raise sqlite3.DatabaseError(f"it is damaged: {' '.join(text.split())}")


def _pragma(connection: sqlite3.Connection, name: str, value: str | None, *, expected: str | int) -> None:
    setting = "" if value is None else f" = {value}"
    (actual,) = connection.execute(f"PRAGMA {name}{setting}").fetchone()
    if actual != expected:
        raise sqlite3.OperationalError(f"{name} is {actual}, it must be {expected}")


def _cannot_open(database: str, error: Exception) -> StorageFailed:
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY:
        return refused(database, "another program has it open", "close it there, or use another file")
    return refused(database, str(error), "see that the disk works and has space, or bring a whole copy back")
