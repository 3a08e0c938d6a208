"""A whole copy of the database, made by a process of its own, whether a service uses the file or not.

Why the copy is whole: the database and its log are copied as they lie there, with checkpoints held off (see
checkpoints.py), so the copy is what a power cut would leave, and SQLite recovers it. Only if both files were
the same before and after does it count; a service that starts or ends meanwhile has changed them, and the
copy is made again. It has another name until it is recovered, checked and on the disk: at the target there
is a whole copy, or nothing.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from actors.errors import StorageFailed
from actors.store.location import locate, opened, refused

#: Times that the copy is made again because the files have changed.
MOST_TRIES: Final = 10
#: Bytes copied at a time.
CHUNK: Final = 1024 * 1024
#: Bytes of the log's header, which is another after each beginning of the log.
HEADER: Final = 32


class Backup(NamedTuple):
    """What was copied."""

    jobs: int
    size: int


def back_up(database: str, target: Path) -> Backup:
    """Copy the database to the target, which must not exist. Raises StorageFailed; then it still does not."""
    source = Path(locate(database))
    if not source.exists():
        raise refused(database, "there is no such file", "set it to the database that is to be copied")
    if source.with_name(f"{source.name}-journal").exists():
        raise refused(database, "its first start was broken off", "start Gofer on it, then copy it")
    with _partial(target) as partial:
        if not any(_copied(source, partial) for _ in range(MOST_TRIES)):
            raise StorageFailed(
                f"{database!r} was not copied: services start and end on it all the time; try again later"
            )
        jobs = _recovered(partial)
        partial.rename(target)
        _sync(target.parent)
    return Backup(jobs, target.stat().st_size)


@contextlib.contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """Have a file for what is not whole yet, which an earlier backup that was killed may have left."""
    if os.path.lexists(target):
        raise StorageFailed(f"{str(target)!r} exists already; name another file, or move that one away")
    partial = target.with_name(f"{target.name}-partial")
    try:
        file = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _not_written(target, error) from None
    with contextlib.closing(os.fdopen(file)):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageFailed(f"another backup to {str(target)!r} is under way; wait for it") from None
        try:
            yield partial
        except OSError as error:
            raise _not_written(target, error) from None
        finally:
            partial.unlink(missing_ok=True)
            _beside(partial).unlink(missing_ok=True)


def _copied(source: Path, partial: Path) -> bool:
    """Copy the database and its log; tell whether nothing has changed them meanwhile."""
    log = _beside(source)
    with _held(log):
        before = _state(source, log)
        _copy(source, partial)
        _beside(partial).unlink(missing_ok=True)
        if log.exists():
            _copy(log, _beside(partial))
        return _state(source, log) == before


def _beside(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


@contextlib.contextmanager
def _held(log: Path) -> Iterator[None]:
    """Hold checkpoints off; where there is no log, no service is using the file."""
    with opened(str(log)) as file:
        if file is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _state(source: Path, log: Path) -> tuple[object, ...]:
    """Return what is another after any change but that the log has grown."""
    found = source.stat()
    main = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    try:
        with log.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            return *main, inode, file.read(HEADER)
    except FileNotFoundError:
        return main


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as file, target.open("wb") as copy:
        target.chmod(0o600)
        while chunk := file.read(CHUNK):
            copy.write(chunk)
            copy.flush()
            # What piles up in the page cache would hold up a commit of the service for as long as it takes.
            os.fsync(copy.fileno())


def _recovered(partial: Path) -> int:
    """Put the log into the copy and check all of it; return how many jobs there are."""
    try:
        with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as copy:
            (jobs,) = copy.execute("SELECT count(*) FROM jobs").fetchone()
            (text,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        text = str(error)
    if text != "ok":
        raise StorageFailed(f"the copy cannot be used, so the database may be damaged: {text}")
    _sync(partial)
    return int(jobs)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _not_written(target: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"{str(target)!r} cannot be written: {error.strerror or error}")
