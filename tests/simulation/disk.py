"""A disk that keeps apart what is synced and what is not.

A killed process leaves both behind: what it wrote is in the page cache. After a power cut there is what
was synced, and of the rest what the drive happened to have written: nothing, the first of the writes, or
some of their sectors. A file whose first sync was never over may be gone altogether.
"""

import random
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final, NamedTuple

SECTOR: Final = 512


class Operation(StrEnum):
    """What is done to a file, and may fail."""

    OPEN = "open"
    READ = "read"
    WRITE = "write"
    TRUNCATE = "truncate"
    SYNC = "sync"


class Full(OSError):
    """The disk has no space."""


class Broken(OSError):
    """The disk has an error; so has everything for a process that was killed."""


class Change(NamedTuple):
    """A write, or a cut at `offset` if there is no data."""

    offset: int
    data: bytes | None

    def apply(self, content: bytearray) -> None:
        """Do it."""
        if self.data is None:
            del content[self.offset :]
            return
        if len(content) < self.offset:
            content.extend(bytes(self.offset - len(content)))
        content[self.offset : self.offset + len(self.data)] = self.data

    def sectors(self) -> Iterator["Change"]:
        """Yield the same in parts that a drive writes all or nothing of."""
        if self.data is None:
            yield self
            return
        at = 0
        while at < len(self.data):
            size = SECTOR - (self.offset + at) % SECTOR
            yield Change(self.offset + at, self.data[at : at + size])
            at += size


class File:
    """What a file holds for those that read it, and what of that is synced."""

    def __init__(self, number: int) -> None:
        #: Tells it from others of the same name.
        self.number = number
        self.content = bytearray()
        #: None as long as the file itself was not synced.
        self._synced: bytearray | None = None
        self._unsynced: list[Change] = []

    def change(self, offset: int, data: bytes | None) -> None:
        """Write, or cut it off if there is no data."""
        change = Change(offset, data)
        change.apply(self.content)
        self._unsynced.append(change)

    def sync(self) -> None:
        """Make durable what was written so far."""
        synced = self._synced if self._synced is not None else bytearray()
        for change in self._unsynced:
            change.apply(synced)
        self._synced, self._unsynced = synced, []

    def lose_power(self, chance: random.Random) -> bool:
        """Keep what a power cut leaves; return whether that is a file."""
        if self._synced is None and chance.random() < 0.5:
            return False
        left = self._synced if self._synced is not None else bytearray()
        for change in self._reached(chance):
            change.apply(left)
        self.content, self._synced, self._unsynced = left, left[:], []
        return True

    def _reached(self, chance: random.Random) -> list[Change]:
        """Return which of the unsynced writes the drive had written by chance."""
        match chance.randrange(3):
            case 0:
                return []
            case 1:
                return self._unsynced[: chance.randrange(len(self._unsynced) + 1)]
            case _:
                sectors = [sector for change in self._unsynced for sector in change.sectors()]
                return [sector for sector in sectors if chance.random() < 0.5]

    def copy(self) -> "File":
        """Return a file with the same content, all of it synced."""
        other = File(self.number)
        other.content, other._synced = self.content[:], self.content[:]
        return other


class Disk:
    """Files by name, for one process at a time."""

    def __init__(self, chance: random.Random, wall: Callable[[], float] = lambda: 0.0) -> None:
        self.chance = chance
        self._wall = wall
        #: The wall time at which a file was made or deleted last.
        self.changed_at = wall()
        self.files: dict[str, File] = {}
        #: Counts the processes: what an earlier one holds open is of no use to it any longer.
        self.process = 0
        #: Counts the power cuts: how often the machine was started again.
        self.boots = 0
        self._made = 0
        #: Called before each operation; may raise Full or Broken, or let others go on meanwhile.
        self.before: Callable[[Operation, str], None] = lambda _operation, _name: None

    def kill(self) -> None:
        """End the process that uses it."""
        self.process += 1

    def lose_power(self) -> None:
        """Lose what is not synced."""
        self.process += 1
        self.boots += 1
        self.files = {name: file for name, file in self.files.items() if file.lose_power(self.chance)}

    def open(self, name: str, *, create: bool) -> "OpenFile":
        """Open a file. Raises FileNotFoundError, Full or Broken."""
        self.before(Operation.OPEN, name)
        if name not in self.files:
            if not create:
                raise FileNotFoundError(2, "No such file or directory", name)
            self._made += 1
            self.changed_at = self._wall()
            self.files[name] = File(self._made)
        return OpenFile(self, name)

    def delete(self, name: str) -> None:
        """Delete a file, durably."""
        self.changed_at = self._wall()
        self.files.pop(name, None)

    def copy(self) -> "Disk":
        """Return a disk with what a process that was killed now would leave to the next."""
        other = Disk(random.Random(0))
        other.files = {name: file.copy() for name, file in self.files.items()}
        return other


class OpenFile:
    """A file that a process has open. Its methods raise Full or Broken."""

    def __init__(self, disk: Disk, name: str) -> None:
        self._disk = disk
        self._name = name
        self._process = disk.process
        self._file = disk.files[name]

    @property
    def number(self) -> int:
        """What tells the file from others."""
        return self._file.number

    @property
    def is_of_this_process(self) -> bool:
        """Whether the process that opened it still runs."""
        return self._process == self._disk.process

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return len(self._file.content)

    def read(self, offset: int, size: int) -> bytes:
        """Return what is there, which may be less."""
        self._begin(Operation.READ)
        return bytes(self._file.content[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Write."""
        self._begin(Operation.WRITE)
        self._file.change(offset, data)

    def truncate(self, size: int) -> None:
        """Cut it off, if it is longer."""
        self._begin(Operation.TRUNCATE)
        if size < self.size:
            self._file.change(size, None)

    def sync(self) -> None:
        """Make durable what was written before."""
        self._begin(Operation.SYNC)
        self._file.sync()

    def _begin(self, operation: Operation) -> None:
        if self._process == self._disk.process:
            self._disk.before(operation, self._name)
        if self._process != self._disk.process:
            raise Broken("the process was killed")
