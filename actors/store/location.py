"""Where the database is to lie: what can be refused before anything is opened or made."""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from typing import Final

from actors.errors import StorageFailed

#: The folder of this process's descriptors.
DESCRIPTORS: Final = "/dev/fd"
OTHER: Final = "set it to the path of a file"
RESTORE: Final = "bring a whole copy back, or use another file"
#: The files of a database, after its name; the longest first, as a folder bounds the length of names.
SUFFIXES: Final = ("-journal", "-lock", "-wal", "")
KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
#: What a user cannot be expected to know from the words of the system.
REASONS: Final = {
    errno.ELOOP: "its symbolic links lead in a circle",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOTDIR: "a part of the path is not a folder",
}


def refused(database: str, problem: str, remedy: str = OTHER) -> StorageFailed:
    """Return the refusal of a database, in one line."""
    return StorageFailed(f"GOFER_DATABASE is {database!r}, which cannot be opened: {problem}; {remedy}")


def locate(database: str) -> str:
    """Return the path without symbolic links. Raises StorageFailed if no file of ours can be there."""
    _see_that_it_is_a_path(database)
    path = os.path.realpath(database)
    for suffix in SUFFIXES:
        try:
            found = os.stat(f"{path}{suffix}" if suffix else database)  # noqa: PTH116
        except FileNotFoundError:
            continue
        except OSError as error:
            raise refused(database, REASONS.get(error.errno or 0, os.strerror(error.errno or 0))) from None
        _see_that_it_is_usable(database, f"{path}{suffix}", found)
    _see_that_its_folder_is_usable(database, path)
    return path


def _see_that_it_is_a_path(database: str) -> None:
    if "\0" in database:
        raise refused(database, "a path has no NUL")
    if re.match(r"\w[\w.+-]*://|(file|sqlite\d?):", database):
        raise refused(database, "it is a URL", "set it to the path alone, such as jobs.db")
    if database.startswith(":"):
        raise refused(database, "of such names there is only :memory:", f"for a file, write ./{database}")


def _see_that_it_is_usable(database: str, path: str, found: os.stat_result) -> None:
    is_main = path == os.path.realpath(database)
    subject = "it" if is_main else f"{path!r}, next to it,"
    remedy = OTHER if is_main else "move that away"
    if not stat.S_ISREG(found.st_mode):
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise refused(database, f"{subject} is {kind}, not a file", remedy)
    for right, word in ((os.R_OK, "read"), (os.W_OK, "write")):
        if not _may(path, right):
            raise refused(
                database,
                f"this process may not {word} {'it' if is_main else repr(path)}",
                "let it, or use another file",
            )


def _see_that_its_folder_is_usable(database: str, path: str) -> None:
    folder = os.path.dirname(path)  # noqa: PTH120
    if not os.path.isdir(folder):  # noqa: PTH112
        raise refused(database, f"the folder {folder!r} does not exist", "make it, or use another path")
    if database.endswith("/"):
        raise refused(database, "it is the name of a folder")
    if os.path.islink(database) and not os.path.exists(path):  # noqa: PTH110, PTH114
        raise refused(
            database,
            f"it is a symbolic link to {path!r}, which does not exist",
            "bring that file back, or set it to that path to make a new one",
        )
    if not _may(folder, os.W_OK | os.X_OK):
        raise refused(
            database,
            f"this process may not write into the folder {folder!r}",
            "let it, or use another folder",
        )


def _may(path: str, right: int) -> bool:
    return os.access(path, right, effective_ids=os.access in os.supports_effective_ids)


def see_that_it_is_closed(database: str, path: str) -> None:
    """Raise StorageFailed if this process has the file open, as to close it again would drop its locks."""
    with contextlib.suppress(FileNotFoundError):
        file = os.stat(path)  # noqa: PTH116
        for name in os.listdir(DESCRIPTORS):  # noqa: PTH208
            with contextlib.suppress(OSError):  # The listing's own descriptor is closed by now.
                if os.path.samestat(file, os.fstat(int(name))):
                    raise refused(database, "this process has it open already", "close it first")


@contextlib.contextmanager
def opened(path: str) -> Iterator[int | None]:
    """Open a file for reading; None if it does not exist."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)
