"""The write-ahead log as SQLite will read it: which frames it takes, and which are left over.

A WAL is a header and frames, each a page with a header of its own (sqlite.org/fileformat2.html#walformat). A
frame counts if it has the salts of the WAL's header, if the checksum in it is that of all frames up to it,
and if a frame that ends a transaction follows. SQLite takes the frames up to the last such end, and says
nothing of what comes after. That can be a transaction that a kill or a power cut broke off, which was told to
no client; or what was acknowledged, behind a damaged frame. Frames with other salts are of no interest: they
are from before the log was begun again, when all of them were in the database.

The checksum adds two words at a time: s0 += w0 + s1, s1 += w1 + s0, modulo 2 to the 32nd. All of this is
linear, so what a frame adds is a sum of its words, each times a constant, and a frame takes the state before
it into the state behind it by a matrix. Python sums the same word of many frames in one step, packed into one
large number: 32 MiB take half a second, a quarter of what a plain loop takes.
"""

import os
import struct
import sys
from array import array
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, Self

#: Bytes of the header, and of that of a frame.
HEADER: Final = 32
FRAME: Final = 24
#: The first word of a WAL; its last bit tells whether the checksums are of big-endian words.
MAGIC: Final = 0x377F0682
VERSION: Final = 3007000
PAGE_SIZES: Final = frozenset(2**power for power in range(9, 17))
#: What a damaged header is taken to say: SQLite's own default, and so the size in files of ours.
PAGE_SIZE: Final = 4096
#: Frames that are read and summed together.
BLOCK: Final = 256
#: Words that one number in a packed one takes up: a product of two words, and the carries of a whole sum.
LANE: Final = 3
WORD: Final = 0xFFFFFFFF
State = tuple[int, int]


class Wal(NamedTuple):
    """What SQLite takes of a WAL."""

    #: Frames up to the last end of a transaction.
    taken: int = 0
    #: Frames after them that belong to the same log.
    left: int = 0
    #: Whether whole transactions are left over: something before them is damaged.
    is_damaged: bool = False
    #: Bytes in a page; 0 without a frame.
    page_size: int = 0
    #: Pages in the database.
    pages: int = 0
    #: Where in the WAL the last content of a page begins.
    places: Mapping[int, int] = MappingProxyType({})


class Header(NamedTuple):
    """What the header of a WAL says."""

    is_whole: bool
    is_big_endian: bool
    page_size: int
    salts: bytes
    checksum: State

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Read it."""
        magic, version, page_size, *_, first, second = struct.unpack(">8I", data)
        is_big_endian = bool(magic & 1)
        words = struct.unpack(f"{'>' if is_big_endian else '<'}6I", data[:24])
        is_known = magic & ~1 == MAGIC and version == VERSION and page_size in PAGE_SIZES
        return cls(
            is_known and _advanced((0, 0), words) == (first, second),
            is_big_endian,
            page_size if page_size in PAGE_SIZES else PAGE_SIZE,
            data[16:24],
            (first, second),
        )


class Frame(NamedTuple):
    """What the header of a frame says."""

    #: Where its page begins in the WAL.
    place: int
    page: int
    #: Pages in the database if the frame ends a transaction, else 0.
    pages: int
    salts: bytes
    checksum: State


def read(file: int) -> Wal:
    """Read an open WAL."""
    data = os.pread(file, HEADER, 0)
    if len(data) < HEADER:
        return Wal()
    header = Header.of(data)
    found = _taken(file, header) if header.is_whole else Wal()
    rest = list(_frames(file, header.page_size, found.taken))
    salts = header.salts if header.is_whole or not rest else rest[0].salts
    rest = [frame for frame in rest if frame.salts == salts]
    return found._replace(left=len(rest), is_damaged=any(frame.pages for frame in rest))


def _taken(file: int, header: Header) -> Wal:
    taken, pages = 0, 0
    places: dict[int, int] = {}
    #: Of the transaction that has not ended yet.
    latest: dict[int, int] = {}
    frames = zip(_frames(file, header.page_size, 0), _checksums(file, header), strict=True)
    for number, (frame, checksum) in enumerate(frames, start=1):
        if frame.salts != header.salts or frame.checksum != checksum or not frame.page:
            break
        latest[frame.page] = frame.place
        if frame.pages:
            taken, pages = number, frame.pages
            places.update(latest)
            latest.clear()
    return Wal(taken, page_size=header.page_size, pages=pages, places=places)


def _frames(file: int, page_size: int, first: int) -> Iterator[Frame]:
    """Yield the frames that are there in full, from this one on."""
    step = FRAME + page_size
    for place in range(HEADER + first * step, os.fstat(file).st_size - step + 1, step):
        page, pages, salts, *checksum = struct.unpack(">II8sII", os.pread(file, FRAME, place))
        yield Frame(place + FRAME, page, pages, salts, (checksum[0], checksum[1]))


def _checksums(file: int, header: Header) -> Iterator[State]:
    """Yield what the checksum of each frame has to be."""
    words = (FRAME + header.page_size) // 4
    #: Which words of a frame are summed: two of its header, and its page.
    summed = (0, 1, *range(FRAME // 4, words))
    factors, (a, b, c, d) = _factors(len(summed) // 2)
    first, second = header.checksum
    for begin in range(HEADER, os.fstat(file).st_size, BLOCK * words * 4):
        data = os.pread(file, BLOCK * words * 4, begin)
        block = array("I", data[: len(data) - len(data) % (words * 4)])
        if header.is_big_endian is not (sys.byteorder == "big"):
            block.byteswap()
        for one, other in _sums(block, words, summed, factors):
            first, second = (a * first + b * second + one) & WORD, (c * first + d * second + other) & WORD
            yield first, second


def _factors(pairs: int) -> tuple[list[State], tuple[int, int, int, int]]:
    """Return what each word of so many pairs counts in both halves of the checksum, and the matrix."""
    factors: list[State] = []
    a, b, c, d = 1, 0, 0, 1
    for _ in range(pairs):  # From the last pair to the first.
        factors += [(b, d), ((a + b) & WORD, (c + d) & WORD)]
        a, b, c, d = (a + b) & WORD, (a + 2 * b) & WORD, (c + d) & WORD, (c + 2 * d) & WORD
    return factors[::-1], (a, b, c, d)


def _sums(
    block: "array[int]", words: int, summed: tuple[int, ...], factors: list[State]
) -> Iterator[tuple[int, int]]:
    """Return what the words of each frame in the block add to both halves, maybe by more than a word."""
    count = len(block) // words
    packed = bytearray(count * LANE * 4)
    lanes = memoryview(packed).cast("I")[::LANE]
    first = second = 0
    for place, (one, other) in zip(summed, factors, strict=True):
        lanes[:] = memoryview(block)[place::words]
        number = int.from_bytes(packed, "little")
        first += one * number
        second += other * number
    return zip(*(_unpacked(total, len(packed)) for total in (first, second)), strict=True)


def _unpacked(number: int, size: int) -> list[int]:
    """Return the lowest word of each lane."""
    return memoryview(number.to_bytes(size, "little")).cast("I")[::LANE].tolist()


def _advanced(state: State, words: tuple[int, ...]) -> State:
    """Return the checksum after a few more words."""
    first, second = state
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & WORD
        second = (second + other + first) & WORD
    return first, second
