"""Who owns a database file: one process at a time, by a lock on a file next to it."""

import contextlib
import fcntl
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from actors import forks, log
from actors.errors import StorageFailed
from actors.store.location import locate, opened, refused, see_that_it_is_closed

#: What the lock file says, after the process id, when the database may be damaged.
NOTE: Final = b"to be checked\n"
#: The bytes that SQLite locks: for reading while it reads, for writing as long as one connection is all.
SHARED: Final = 0x40000002
SHARED_BYTES: Final = 510


class Ownership:
    """An exclusive lock on `<database>-lock`, which names its owner's process id and stays when that ends.

    SQLite's own lock does not do: it is lost when any code in the process closes the file, and it does not
    outlast an opening that fails. This one ends with the process, whatever ends that. A forked child lets go
    of it. If a person deletes the file, the next process makes another, finds that free, and then waits for
    SQLite's lock, which the owner still has.
    """

    def __init__(self, database: str, *, wait: bool) -> None:
        """Take the lock; with `wait`, block until its owner is gone, which costs no CPU.

        Raises StorageFailed, immediately, if there is an owner and `wait` is false, or if no database can be
        there.
        """
        self._database = database
        self._path = locate(database)
        self._file: int | None = None
        #: Whether this process made the file, and has not come to own a database yet.
        self._is_new = False
        forks.in_child(self._let_go)
        try:
            while not self._is_locked(wait=wait):
                self._close()
            self._wait_for_database(wait=wait)
        except OSError as error:
            self.release()
            problem = f"the lock file {self._path}-lock cannot be used: {os.strerror(error.errno or 0)}"
            raise refused(database, problem, "use a local disk that has space") from error
        except BaseException:
            self.release()
            raise
        assert self._file is not None
        #: Whether the last owner left a note that the database may be damaged.
        self.is_suspect: bool = NOTE in os.pread(self._file, 100, 0)

    def confirm(self) -> None:
        """Say whose the database is, now that it is open and in order; take the last owner's note away."""
        assert self._file is not None
        self._is_new = False
        with contextlib.suppress(OSError):  # On a full disk it stays as it was; it is a lock all the same.
            # In one write of one length, so that a reader never sees none, or half of one.
            os.pwrite(self._file, _text(), 0)
            os.truncate(self._file, len(_text()))

    def suspect(self) -> None:
        """Leave a note for the next owner that the database may be damaged."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.pwrite(self._file, NOTE, len(_text()))

    def release(self) -> None:
        """Let the next owner have it, and leave no file where no database came to be; may be called again."""
        if self._file is not None and self._is_new:
            with contextlib.suppress(OSError):
                os.unlink(f"{self._path}-lock")  # noqa: PTH108
        self._is_new = False
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _let_go(self) -> None:
        """Release it in a forked child, and the database's files: nothing that is done there can do harm."""
        self._close()
        files = []
        for path in (self._path, f"{self._path}-wal"):
            with contextlib.suppress(FileNotFoundError):
                files.append(Path(path).stat())
        forks.let_go(lambda number: any(os.path.samestat(os.fstat(number), file) for file in files))

    def _is_locked(self, *, wait: bool) -> bool:
        """Lock the file; tell whether it still is the one at its path, or was deleted meanwhile."""
        self._open(f"{self._path}-lock")
        if self._file is None:
            return False
        owner = os.pread(self._file, len(_text()), 0).decode(errors="replace").strip()
        owner = f"process {owner}" if owner else "another process"
        try:
            self._take(partial(fcntl.flock, self._file), fcntl.LOCK_EX, owner, wait=wait)
        except StorageFailed:
            self._is_new = False  # Another process has locked it first.
            raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._file), os.stat(f"{self._path}-lock")):  # noqa: PTH116
                return True
        self._is_new = False
        return False

    def _open(self, path: str) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._is_new = True
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def _wait_for_database(self, *, wait: bool) -> None:
        """See that no process has SQLite's own lock, as an owner has whose lock file was deleted."""
        see_that_it_is_closed(self._database, self._path)
        with opened(self._path) as file:
            if file is not None:
                self._take(
                    lambda flags: fcntl.lockf(file, flags, SHARED_BYTES, SHARED),
                    fcntl.LOCK_SH,
                    "another process",
                    wait=wait,
                )

    def _take(self, lock: Callable[[int], None], kind: int, owner: str, *, wait: bool) -> None:
        """Take a lock, or wait until it is free."""
        try:
            lock(kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                is_ours = owner == f"process {os.getpid()}"
                remedy = ", this one; stop the other system in it" if is_ours else "; stop it"
                raise StorageFailed(
                    f"GOFER_DATABASE is {self._database!r}, which belongs to {owner}{remedy},"
                    " or use another file"
                ) from None
            log.logger("Ownership").info("waiting for the owner of the database to end", owner=owner)
            lock(kind)


def _text() -> bytes:
    return f"{os.getpid():<10}\n".encode()
