"""What lies where the database is to be, seen before anything is opened for writing.

SQLite trusts what it finds: it changes another program's file before we can tell whose it is, writes over a
WAL whose database is missing, and rolls back whatever journal lies there. So a file has to be known as ours
and whole first, or it is not touched. Nothing here writes, and what is read does not grow with the file: the
header, the schema, one path of each b-tree, and the statuses that occur, each by one step in an index.

It must not run while this process has the file open: to close a file drops all locks that the process has
on it, SQLite's too. So it does not open one that is open here already.

What a kill leaves of ours, and has to pass. A file is made in rollback mode, in one transaction, and switched
to a WAL only then, so at every moment it is empty, or with a journal that says that there was nothing
before, or ours by its own header. Older versions switched first: then the main file can be one empty page,
and all else is in the WAL.
"""

import os
import struct
from typing import Final, NamedTuple, NoReturn, Self

from actors.lifecycle import Status
from actors.store import wal
from actors.store.image import HEADER, INDEX, TABLE, UTF_8, Damaged, Entry, Image
from actors.store.location import RESTORE, locate, opened, refused, see_that_it_is_closed
from actors.store.schema import APPLICATION_ID, MIGRATIONS, objects
from actors.store.wal import PAGE_SIZES, Wal

OWN: Final = "use another file"
FOREIGN: Final = "it is not a Gofer database"
#: The version of the file format that has a WAL, and the latest that there is.
WAL_MODE: Final = 2
JOURNAL_MAGIC: Final = bytes.fromhex("d9d505f920a163d7")


class Found(NamedTuple):
    """A database that may be opened."""

    path: str
    #: Whether there is nothing in it yet.
    is_new: bool
    wal: Wal


class Unfit(Exception):
    """A database must not be opened; the texts say why, and what to do."""


class Journal(NamedTuple):
    """A rollback journal that SQLite would roll back."""

    #: Pages that the database had before.
    pages: int
    #: The first page that it would bring back, and what would be in it.
    first: int
    page: bytes

    @classmethod
    def of(cls, file: int) -> Self | None:
        """Read it; None if it is none, as one that was ended is."""
        data = os.pread(file, 28, 0)
        if len(data) < 28 or not data.startswith(JOURNAL_MAGIC):  # noqa: PLR2004 - the header's fields
            return None
        _, _, _, pages, sector, page_size = struct.unpack(">8sIIIII", data)
        record = os.pread(file, page_size + 4, sector) if page_size in PAGE_SIZES else b""
        return cls(pages, int.from_bytes(record[:4]), record[4:])


def inspect(database: str) -> Found:
    """Look at the file. Raises StorageFailed unless it is new, or ours and whole; changes nothing."""
    path = locate(database)
    try:
        see_that_it_is_closed(database, path)
        with opened(path) as file, opened(f"{path}-wal") as log, opened(f"{path}-journal") as journal:
            return _Inspection(path, file, log, journal).found()
    except Unfit as unfit:
        raise refused(database, *unfit.args) from None
    except Damaged as damage:
        raise refused(database, str(damage), RESTORE) from None
    except (LookupError, ValueError, struct.error) as error:
        raise refused(database, "it is damaged", RESTORE) from error
    except OSError as error:
        raise refused(database, os.strerror(error.errno or 0), OWN) from error


class _Inspection:
    """One look at the open files of a database, each of which may be missing."""

    def __init__(self, path: str, file: int | None, log: int | None, journal: int | None) -> None:
        self._path = path
        self._log_path = f"{path}-wal"
        self._journal_path = f"{path}-journal"
        self._file = file
        self._log = log
        self._journal = None if journal is None else Journal.of(journal)
        self._wal = Wal() if log is None else wal.read(log)
        self._has_wal = log is not None and os.fstat(log).st_size > wal.HEADER

    def found(self) -> Found:
        """Judge. Raises Unfit or Damaged; what is not whole may also raise an error of its parsing."""
        if self._file is None or not os.fstat(self._file).st_size:
            self._see_that_nothing_was_there()
            is_new = True
        else:
            is_new = self._was_being_made(self._file) or self._is_blank(
                Image(self._file, self._log, self._wal)
            )
        return Found(self._path, is_new, self._wal)

    def _see_that_nothing_was_there(self) -> None:
        state = "missing" if self._file is None else "empty"
        if self._has_wal:
            self._refuse(f"it is {state}, but its jobs may be in {self._log_path!r}", "that file")
        if self._journal is not None and self._journal.pages:
            self._refuse(f"it is {state}, but {self._journal_path!r} has parts of it", "that file")

    def _was_being_made(self, file: int) -> bool:
        """Tell whether a process of ours was killed when it made the file; SQLite will empty it."""
        if self._journal is None or self._journal.pages or self._has_wal:
            return False
        header = os.pread(file, HEADER, 0)
        return not any(header) or header[68:72] == APPLICATION_ID.to_bytes(4)

    def _is_blank(self, image: Image) -> bool:
        """See that a database is ours and whole; tell whether it has no tables yet."""
        self._see_that_the_wal_is_its_own(image)
        if image.application not in {0, APPLICATION_ID} or image.encoding not in {0, UTF_8}:
            raise Unfit(FOREIGN, OWN)
        if image.version > len(MIGRATIONS):
            raise Unfit(
                f"it has schema version {image.version} and this Gofer knows none after {len(MIGRATIONS)};"
                " a newer Gofer made it",
                "use that one, or another file",
            )
        if image.is_blank and image.application == image.version == 0:
            if self._wal.is_damaged:
                self._refuse(f"all of it is in {self._log_path!r}, which is damaged", "that file")
            return True
        self._see_that_it_is_whole(image)
        self._see_that_the_journal_is_its_own(image)
        return False

    def _see_that_the_wal_is_its_own(self, image: Image) -> None:
        if max(image.own[18:20]) > WAL_MODE:
            raise Unfit("its file format is newer than this SQLite", OWN)
        is_other = image.own[19] < WAL_MODE or self._wal.page_size not in {0, image.page_size}
        if self._has_wal and is_other:
            self._refuse(f"{self._log_path!r} is of another database", "that file")

    def _see_that_it_is_whole(self, image: Image) -> None:
        if not image.version:
            raise Unfit(FOREIGN, OWN)
        image.see_that_all_pages_are_there()
        entries = {entry.name: entry for entry in image.schema()}
        for name, sql in objects(image.version).items():
            if name not in entries or entries[name].sql != sql:
                if image.application != APPLICATION_ID:
                    raise Unfit(FOREIGN, OWN)
                raise Unfit(f"{name!r} in its schema is missing or was changed", RESTORE)
            image.walk(entries[name].root, INDEX if _is_index(entries[name]) else TABLE)
        self._see_that_statuses_are_known(image, entries["jobs_by_status"].root)

    def _see_that_statuses_are_known(self, image: Image, root: int) -> None:
        for text in image.firsts(root):
            if text.decode() not in set(Status):
                raise Unfit(
                    f"a job has the status {text.decode()[:100]!r}, which this Gofer does not know",
                    "use the Gofer that wrote it, or another file",
                )

    def _see_that_the_journal_is_its_own(self, image: Image) -> None:
        """Let only the switch to a WAL be rolled back, which changes nothing but the header of page 1."""
        journal = self._journal
        if journal is None:
            return
        if journal.first != 1 or _identity(journal.page) != _identity(image.own):
            self._refuse(f"{self._journal_path!r} would change it, and is not Gofer's", "that file")

    def _refuse(self, problem: str, other: str) -> NoReturn:
        raise Unfit(problem, f"bring back what belongs together, or move {other} away")


def _identity(page: bytes) -> bytes:
    """Return a page 1 without what a switch to a WAL changes: the format and the counts of changes."""
    return page[:18] + page[20:24] + page[28:92] + page[100:]


def _is_index(entry: Entry) -> bool:
    return entry.kind == "index" or "WITHOUT ROWID" in entry.sql
