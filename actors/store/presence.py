"""Whether the files of an open database are still those at its path.

A handler that copies the database drops our locks when it closes the file (POSIX locks are the process's, not
the descriptor's). Then a look from outside, as with `sqlite3 jobs.db`, moves the WAL into the database and
deletes it, and what we write goes into a file without a name, which ends with the process. So each commit
looks whether both files are there, after it is written and before any client is told. What was told before
that is safe: SQLite moves all of a WAL into the database before it deletes it.

A system call lets go of the GIL, and getting it back from a busy event loop is dear. So a commit makes one:
it asks when the folder last changed, as it does when a file in it is deleted or replaced. Only then are both
files looked at, and as long as that time is so recent that another change could have the same.
"""

import os
import time
from typing import Final

from actors.errors import OutcomeInDoubt
from actors.settings import IN_MEMORY

#: Its files, after its name.
FILES: Final = ("", "-wal")
#: Nanoseconds by which the clock of a file system may lag: that of FAT has steps of two seconds.
SETTLED: Final = 3 * 10**9


class Presence:
    """Which files were opened."""

    def __init__(self, path: str) -> None:
        """Note the files of a database that was just opened at this path, which may be in memory."""
        real = os.path.realpath(path)
        self._folder = os.path.dirname(real)  # noqa: PTH120
        self._files = {} if path == IN_MEMORY else {real + suffix: _inode(real + suffix) for suffix in FILES}
        #: The folder as it was when both files were there, and had been for a while.
        self._settled: tuple[int, int, int] | None = None

    def check(self) -> None:
        """Raise OutcomeInDoubt if a file was replaced or deleted."""
        if not self._files:
            return
        try:
            folder = os.stat(self._folder)  # noqa: PTH116
        except OSError as error:
            raise OutcomeInDoubt(f"{self._folder} was replaced or deleted while it was in use") from error
        change = (folder.st_dev, folder.st_ino, folder.st_mtime_ns)
        if change == self._settled:
            return
        for path, inode in self._files.items():
            if _inode(path) != inode:
                raise OutcomeInDoubt(f"{path} was replaced or deleted while it was in use")
        self._settled = change if time.time_ns() - folder.st_mtime_ns > SETTLED else None


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
