"""When SQLite may move the write-ahead log into the database, and how a copy from outside holds that off.

Between two checkpoints the database file does not change and the log is only appended to, so that both can be
copied as they lie there, while the service runs. A checkpoint happens within a commit only. So each commit
takes a shared lock on the log, and checkpoints only if it gets it; who copies has an exclusive one. Neither
waits for the other for longer than a commit, and the lock of a process that dies is gone. SQLite locks the
database, not the log, so that our lock is in nobody's way.
"""

import contextlib
import fcntl
import os
import sqlite3
from typing import Final

#: Pages in the log at which it is moved into the database, about 4 MB; SQLite's own default.
PAGES: Final = 1000
NEVER: Final = 0


class Checkpoints:
    """Allows a commit to make a checkpoint, or not. A database in memory makes none."""

    def __init__(self, connection: sqlite3.Connection, path: str | None) -> None:
        """Begin without any: the first commit looks. Raises OSError if the log of this path is not there."""
        self._connection = connection
        self._log = None if path is None else os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        self._pages = NEVER
        self._set(NEVER)

    def begin_commit(self) -> None:
        """Allow a checkpoint, unless somebody is copying the files."""
        if self._log is not None:
            self._set(PAGES if self._is_locked(self._log) else NEVER)

    def end_commit(self) -> None:
        """Let others have the files to themselves."""
        if self._log is not None:
            fcntl.flock(self._log, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def _is_locked(self, log: int) -> bool:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
        return False

    def _set(self, pages: int) -> None:
        if pages != self._pages:
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
            self._pages = pages
