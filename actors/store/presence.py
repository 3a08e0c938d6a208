"""Whether the files of an open database are still those at its path.

A handler that copies the database drops our locks when it closes the file (POSIX locks are the process's, not
the descriptor's). Then a look from outside, as with `sqlite3 jobs.db`, moves the WAL into the database and
deletes it, and what we write goes into a file without a name, which ends with the process. So each commit
looks whether both files are there, after it is written and before any client is told. What was told before
that is safe: SQLite moves all of a WAL into the database before it deletes it.
"""

import os
from typing import Final

from actors.errors import OutcomeInDoubt

IN_MEMORY: Final = ":memory:"
#: Its files, after its name.
FILES: Final = ("", "-wal")


class Presence:
    """Which files were opened. To look costs two system calls."""

    def __init__(self, path: str) -> None:
        """Note the files of a database that was just opened at this path, which may be in memory."""
        real = os.path.realpath(path)
        self._files = (
            [] if path == IN_MEMORY else [(real + suffix, _inode(real + suffix)) for suffix in FILES]
        )

    def check(self) -> None:
        """Raise OutcomeInDoubt if a file was replaced or deleted."""
        for path, inode in self._files:
            if _inode(path) != inode:
                raise OutcomeInDoubt(f"{path} was replaced or deleted while it was in use")


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
