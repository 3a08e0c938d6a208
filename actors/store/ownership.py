"""Who owns a database file: one process at a time, by a lock on a file next to it."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from actors import forks, log
from actors.errors import StorageFailed

#: What the lock file says, after the process id, when the database may be damaged.
NOTE: Final = b"to be checked\n"


class Ownership:
    """An exclusive lock on `<database>-lock`, which is never deleted and names its owner's process id.

    SQLite's own lock does not do: it is lost when any code in the process closes the file, and a waiter
    polls. This one ends with the process, whatever ends that. A forked child lets go of it.
    """

    def __init__(self, database: str, *, wait: bool) -> None:
        """Take the lock; with `wait`, block until its owner is gone, which costs no CPU.

        Raises StorageFailed, immediately, if there is an owner and `wait` is false, or if no file can be
        made.
        """
        path = os.path.realpath(database)
        try:
            if os.path.isdir(path):  # noqa: PTH112 - and no lock is left next to it
                raise IsADirectoryError("it is a directory")
            self._file: int | None = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageFailed(f"the database {database!r} cannot be opened: {error}") from error
        self._path = path
        forks.in_child(self._let_go)
        try:
            self._lock(database, wait=wait)
        except BaseException:
            self.release()
            raise
        #: Whether the last owner left a note that the database may be damaged.
        self.is_suspect = NOTE in os.pread(self._file, 100, 0)
        with contextlib.suppress(OSError):  # On a full disk it says nothing; it is a lock all the same.
            # In one write of one length, so that a reader never sees none, or half of one.
            os.pwrite(self._file, _text(), 0)

    def trust(self) -> None:
        """Take the note away: the database is in order."""
        assert self._file is not None
        os.truncate(self._file, len(_text()))

    def suspect(self) -> None:
        """Leave a note for the next owner that the database may be damaged."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.pwrite(self._file, NOTE, len(_text()))

    def release(self) -> None:
        """Let the next owner have it; may be called again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _let_go(self) -> None:
        """Release it in a forked child, and the database's files: nothing that is done there can do harm."""
        self.release()
        files = []
        for path in (self._path, f"{self._path}-wal"):
            with contextlib.suppress(FileNotFoundError):
                files.append(Path(path).stat())
        forks.let_go(lambda number: any(os.path.samestat(os.fstat(number), file) for file in files))

    def _lock(self, database: str, *, wait: bool) -> None:
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._file, len(_text()), 0).decode(errors="replace").strip() or "unknown"
            if not wait:
                holder = (
                    ", this one; stop the other system in it" if owner == str(os.getpid()) else "; stop it"
                )
                raise StorageFailed(
                    f"the database {database!r} belongs to process {owner}{holder}, or use another file"
                ) from None
            log.logger("Ownership").info("waiting for the owner of the database to end", owner=owner)
            fcntl.flock(self._file, fcntl.LOCK_EX)


def _text() -> bytes:
    return f"{os.getpid():<10}\n".encode()
