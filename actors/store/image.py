"""A database file as SQLite will read it: its pages, and over them those of the WAL.

Read by hand, as SQLite cannot look without a trace: opening a WAL makes a file of shared memory, closing the
last connection moves the WAL into the database, and what opens neither sees nothing of a WAL. Only what is
asked for is read: a few pages, however large the file is. The format is sqlite.org/fileformat2.html.
"""

import bisect
import os
import struct
from collections.abc import Iterator
from functools import partial
from typing import Final, NamedTuple

from actors.store.wal import PAGE_SIZES, Wal

MAGIC: Final = b"SQLite format 3\0"
HEADER: Final = 100
UTF_8: Final = 1
#: More levels than any b-tree has, and more pages than the schema of a program that we know.
DEEPEST: Final = 20
MOST_PAGES: Final = 10_000
#: Bytes of any row that is read here.
MOST_BYTES: Final = 2**20
#: What a page of a b-tree begins with, inside the tree and at a leaf.
TABLE: Final = (5, 13)
INDEX: Final = (2, 10)
#: The types of whole numbers.
NUMBERS: Final = range(1, 7)
#: Bytes that a value takes up, by its type. From 12 on the type tells the size, and an odd one is a text.
SIZES: Final = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)
#: The first byte that SQLite locks; it never writes the page with it.
LOCKED: Final = 0x40000000


class Damaged(Exception):
    """A file is not whole; the text says what is wrong."""


class Entry(NamedTuple):
    """An object in the schema."""

    kind: str
    name: str
    root: int
    sql: str


class Node(NamedTuple):
    """A page of a b-tree."""

    data: bytes
    #: Where its cells begin.
    cells: tuple[int, ...]
    is_leaf: bool
    #: The last child; 0 in a leaf.
    last: int

    def child(self, cell: int) -> int:
        """Return the page before this cell, in a page that is not a leaf."""
        return _number(self.data, self.cells[cell])


class Image:
    """A database that is not empty. Its methods raise Damaged."""

    def __init__(self, file: int, log: int | None, wal: Wal) -> None:
        """Read the header, from an open file and its open WAL."""
        self._file = file
        self._log = log
        self._wal = wal
        header = os.pread(file, HEADER, 0)
        if len(header) < HEADER or not header.startswith(MAGIC):
            raise Damaged("it is not a SQLite database")
        self.page_size = _page_size(header)
        #: The main file's own first page, which the WAL may replace.
        self.own = os.pread(file, self.page_size, 0)
        header = self._read(1)[:HEADER]
        if header[21:24] != bytes((64, 32, 32)) or _page_size(header) != self.page_size:
            raise Damaged("its header is damaged")
        self._usable = self.page_size - header[20]
        self.encoding = _number(header, 56)
        self.version = _number(header, 60)
        self.application = _number(header, 68)
        is_counted = header[24:28] == header[92:96]
        #: How many it has to have; 0 if that is not known, as after a very old SQLite.
        self._pages = self._wal.pages or (_number(header, 28) if is_counted else 0)

    @property
    def is_blank(self) -> bool:
        """Whether there is not a table in it."""
        root = self._node(1, TABLE)
        return root.is_leaf and not root.cells

    def see_that_all_pages_are_there(self) -> None:
        """Look at sizes alone: SQLite opens a file that was cut off, until it reads what is missing."""
        there = os.fstat(self._file).st_size // self.page_size
        unwritten = LOCKED // self.page_size + 1
        others = sum(there < page <= self._pages for page in {*self._wal.places, unwritten})
        if there + others < self._pages:
            raise Damaged(f"it is cut off: {there + others} of its {self._pages} pages are there")

    def schema(self) -> Iterator[Entry]:
        """Yield what is in the schema."""
        pages = [1]
        for _ in range(MOST_PAGES):
            if not pages:
                return
            node = self._node(pages.pop(), TABLE)
            if node.is_leaf:
                yield from (self._entry(node.data, cell) for cell in node.cells)
            else:
                pages += [node.last, *(node.child(cell) for cell in range(len(node.cells)))]
        raise Damaged("its schema is damaged")

    def walk(self, root: int, kind: tuple[int, int]) -> None:
        """See that the first and the last pages of a b-tree, from its root to a leaf, are such."""
        for side in (0, -1):
            page = root
            for _ in range(DEEPEST):
                node = self._node(page, kind)
                if node.is_leaf:
                    break
                page = node.child(0) if side == 0 and node.cells else node.last
            else:
                raise Damaged(f"its page {root} is damaged")

    def firsts(self, root: int) -> Iterator[bytes]:
        """Yield the texts that are first in the rows of an index, each once and in order."""
        text = self._next(root, None)
        while text is not None:
            yield text
            before, text = text, self._next(root, text)
            if text is not None and text <= before:
                raise Damaged("its index is damaged")

    def _next(self, root: int, after: bytes | None) -> bytes | None:
        """Return the first text after this one, going down one path of an index."""
        found, page = None, root
        for _ in range(DEEPEST):
            node = self._node(page, INDEX)
            first = partial(self._first, node)
            cells = range(len(node.cells))
            place = 0 if after is None else bisect.bisect_right(cells, after, key=first)
            if place < len(cells):
                found = first(place)
            if node.is_leaf:
                return found
            page = node.child(place) if place < len(cells) else node.last
        raise Damaged(f"its page {root} is damaged")

    def _first(self, node: Node, cell: int) -> bytes:
        place = node.cells[cell] + (0 if node.is_leaf else 4)
        size, place = _varint(node.data, place)
        value = _values(self._payload(node.data, place, size, (self._usable - 12) * 64 // 255 - 23))[0]
        if not isinstance(value, bytes):
            raise Damaged("its index is damaged")
        return value

    def _entry(self, data: bytes, place: int) -> Entry:
        size, place = _varint(data, place)
        _, place = _varint(data, place)
        match _values(self._payload(data, place, size, self._usable - 35)):
            case [bytes(kind), bytes(name), _, root, sql]:
                sql = sql if isinstance(sql, bytes) else b""
                return Entry(kind.decode(), name.decode(), root if isinstance(root, int) else 0, sql.decode())
        raise Damaged("its schema is damaged")

    def _payload(self, data: bytes, place: int, size: int, most: int) -> bytes:
        """Return a cell's content, of which at most so many bytes are in its page."""
        if size > MOST_BYTES:
            raise Damaged("its rows are damaged")
        least = (self._usable - 12) * 32 // 255 - 23
        here = least + (size - least) % (self._usable - 4)
        if size <= most:
            return data[place : place + size]
        here = here if here <= most else least
        parts, page, left = [data[place : place + here]], _number(data, place + here), size - here
        while left > 0:
            data = self._read(page)
            parts.append(data[4 : 4 + min(left, self._usable - 4)])
            page, left = _number(data, 0), left - (self._usable - 4)
        return b"".join(parts)

    def _node(self, page: int, kind: tuple[int, int]) -> Node:
        data = self._read(page)
        begin = HEADER if page == 1 else 0
        if data[begin] not in kind:
            raise Damaged(f"its page {page} is damaged")
        is_leaf = data[begin] == kind[1]
        (count,) = struct.unpack_from(">H", data, begin + 3)
        cells = struct.unpack_from(f">{count}H", data, begin + (8 if is_leaf else 12))
        return Node(data, cells, is_leaf, 0 if is_leaf else _number(data, begin + 8))

    def _read(self, page: int) -> bytes:
        place = self._wal.places.get(page)
        if place is not None and self._log is not None:
            return os.pread(self._log, self.page_size, place)
        data = os.pread(self._file, self.page_size, max(page - 1, 0) * self.page_size)
        if not page or len(data) < self.page_size:
            raise Damaged(f"it is damaged: page {page} is not there")
        return data


def _number(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 4])


def _page_size(header: bytes) -> int:
    (size,) = struct.unpack_from(">H", header, 16)
    size = 65536 if size == 1 else size
    if size not in PAGE_SIZES:
        raise Damaged("its header is damaged")
    return size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return the number that begins there, seven bits in a byte, and where the next one does."""
    number = 0
    for count in range(8):
        byte = data[place + count]
        number = number << 7 | byte & 127
        if byte <= 127:  # noqa: PLR2004 - the highest bit says that more follow
            return number, place + count + 1
    return number << 8 | data[place + 8], place + 9


def _values(record: bytes) -> list[bytes | int | None]:
    """Return the values of a row: texts as bytes, whole numbers; None for all others."""
    end, place = _varint(record, 0)
    value, values = end, list[bytes | int | None]()
    while place < end:
        kind, place = _varint(record, place)
        size = SIZES[kind] if kind < len(SIZES) else (kind - len(SIZES)) // 2
        data = record[value : value + size]
        if len(data) < size:
            raise Damaged("its rows are damaged")
        values.append(_value(kind, data))
        value += size
    return values


def _value(kind: int, data: bytes) -> bytes | int | None:
    if kind in NUMBERS:
        return int.from_bytes(data, signed=True)
    return data if kind > len(SIZES) and kind % 2 else None
