"""The idempotency keys under which jobs were submitted, so that a repeat is known and stores nothing more.

Why one key is one job, however many race: the JobStore handles one message at a time, and what it has added
since the last commit is looked at first. A key is written in the commit of its jobs and rolled back with it,
so a crash leaves both or neither, and a key whose jobs were refused stays free.

The last MOST keys are kept, whatever becomes of their jobs. Rows are numbered without a gap, as only the
first are ever deleted: so which ones are too many is known without counting. Of keys and bodies only digests
are kept, which makes all keys about 80 MB at most.
"""

import sqlite3
from collections.abc import Callable
from itertools import chain
from typing import Final, NamedTuple

from actors.errors import KeyReused
from actors.store.rows import values

MOST: Final = 1_000_000
FIND: Final = "SELECT body, job, jobs FROM keys WHERE key = ?"
INSERT: Final = "INSERT INTO keys (key, body, job, jobs) "
#: At once as many as were just added, if there are MOST already.
DELETE_FIRST: Final = "DELETE FROM keys WHERE number <= (SELECT max(number) FROM keys) - ?"

Write = Callable[[str, tuple[object, ...]], sqlite3.Cursor]


class Entry(NamedTuple):
    """What a key stands for."""

    body: bytes
    #: The id of the first job, as a number, and how many there are: those of the next ids.
    first: int
    jobs: int


class Keys:
    """The table of keys. Its methods raise sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection, write: Write) -> None:
        """Read by the connection; `write` does so in the open transaction."""
        self._connection = connection
        self._write = write
        #: Those since the last commit, by the digest of the key.
        self._new: dict[bytes, Entry] = {}

    def find(self, key: bytes, body: bytes) -> Entry | None:
        """Return what the key stands for, if it came before. Raises KeyReused if with another body."""
        entry = self._new.get(key) or self._stored(key)
        if entry is not None and entry.body != body:
            raise KeyReused(
                "this idempotency key came with another request before; repeat that one as it was,"
                " or use a new key"
            )
        return entry

    def add(self, key: bytes, entry: Entry) -> None:
        """Keep a new key."""
        self._new[key] = entry

    def write(self) -> None:
        """Put the new keys into the open transaction, and delete the first of too many."""
        if not self._new:
            return
        rows = [(key, *entry) for key, entry in self._new.items()]
        self._new = {}
        self._write(INSERT + values(rows), tuple(chain.from_iterable(rows)))
        self._write(DELETE_FIRST, (MOST,))

    def rollback(self) -> None:
        """Forget what was not committed."""
        self._new = {}

    def _stored(self, key: bytes) -> Entry | None:
        row = self._connection.execute(FIND, (key,)).fetchone()
        return None if row is None else Entry(*row)
