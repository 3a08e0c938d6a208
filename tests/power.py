"""What a power cut would leave, at many moments of a real run: every job that was acknowledged, every time.

gunicorn runs under strace, while clients submit jobs of several kilobytes and look at them. The trace holds,
in order, all that was written to the database's files, each fsync, and each answer that left on a socket.
From it two things are seen:

1. No answer runs ahead of the disk. When an answer's first byte leaves, the files as they were at their last
   fsync that had returned (nothing that was written later) hold every job in the answer, with at least the
   status in it: a 201's job, a completed job's end.
2. At random moments the power is cut: each file has what it had at its last fsync, and of what was written
   since either so much as was written up to some moment, or some pages and not others, as a disk may do.
   SQLite opens each such image, finds it sound, and has every job that was shown before that moment.

The run is long enough for the write-ahead log to be restarted at least twice, since what is new then
overwrites the only durable copy of what is old, unless the checkpoint has made that durable in the database
file first. A run within one WAL would never notice a missing fsync there.

    .venv/bin/python -m tests.power --jobs 500 --images 2000
"""

import argparse
import bisect
import contextlib
import json
import os
import random
import re
import signal
import sqlite3
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest import mock

from tests import service as services
from tests.service import PATIENCE, Service, eventually, running
from tests.storage import report

#: How far a job has come; one that was shown so far must not be found less far.
RANKS: Final = {"pending": 0, "processing": 1, "completed": 2}
NAME: Final = "jobs.db"
CLIENTS: Final = 4
#: Bytes in the texts of the payloads, in turn.
SIZES: Final = (100, 9_000, 60_000, 100_000)
#: Where SQLite's write-ahead log begins anew: with a header of this size, at its start.
WAL_HEADER: Final = 32
RESTARTS: Final = 2

CALLS: Final = (
    "openat,open,creat,close,unlink,unlinkat,rename,renameat,renameat2,ftruncate,truncate,fallocate,"
    "pwrite64,pwritev,pwritev2,write,writev,sendto,sendmsg,fsync,fdatasync,sync_file_range"
)
LINE: Final = re.compile(r"(\d+) +[\d.]+ (?:<\.\.\. )?(\w+)(?:\(| resumed>)(.*)")
RESULT: Final = re.compile(r"\) += (-?\d+)[^=]*$")
TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
DESCRIPTOR: Final = re.compile(r"(?:-?\d+|AT_FDCWD)<([^>]*)>")
OFFSET: Final = re.compile(r'", \d+, (\d+)$')
SIZE: Final = re.compile(r", (\d+)$")


class Call(NamedTuple):
    """A system call: when it began and ended, counted in lines of the trace."""

    name: str
    arguments: str
    began: int
    ended: int
    result: int

    @property
    def file(self) -> str:
        """What its descriptor stands for: a path, or a socket."""
        found = DESCRIPTOR.match(self.arguments)
        return "" if found is None else _plain(found[1])

    @property
    def data(self) -> bytes:
        """What it writes, or the path that it names."""
        return b"".join(bytes.fromhex(text.replace("\\x", "")) for text in TEXT.findall(self.arguments))


def _plain(text: str) -> str:
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text)


def read(trace: Path) -> Iterator[Call]:
    """Yield the calls that succeeded, as they ended; those of other threads may come in between."""
    begun: dict[str, tuple[int, str]] = {}
    with trace.open() as lines:
        for number, line in enumerate(lines):
            found = LINE.match(line)
            if found is None:
                continue  # a signal, or an exit
            thread, name, rest = found.groups()
            if rest.endswith("<unfinished ...>"):
                begun[thread] = (number, rest.removesuffix("<unfinished ...>").rstrip())
                continue
            began, start = begun.pop(thread) if "resumed>" in line[:80] else (number, "")
            ended = RESULT.search(rest)
            if ended is not None and int(ended[1]) >= 0:
                yield Call(name, start + rest[: ended.start()], began, number, int(ended[1]))


# What the trace says.


class Change(NamedTuple):
    """Something that was written to a file, or (without data) the size that it was cut to."""

    at: int
    offset: int
    data: bytes | None


class File:
    """A file as it was written, with what was made durable when."""

    def __init__(self, created_at: int) -> None:
        self.created_at = created_at
        self.changes: list[Change] = []
        #: When an fsync returned, and how many changes it covers.
        self._synced: list[tuple[int, int]] = []

    def syncs_before(self, at: int) -> int:
        """Return how many fsyncs had returned."""
        return sum(ended < at for ended, _ in self._synced)

    def forget_syncs(self, after: int) -> None:
        """Forget every fsync but the first ones, as if there had been none."""
        del self._synced[after:]

    def sync(self, began: int, ended: int) -> None:
        """Note an fsync: it covers what was written before it began, once it has returned."""
        self._synced.append((ended, self.written(began)))

    def written(self, at: int) -> int:
        """Return how many changes had been made."""
        return bisect.bisect_left(self.changes, at, key=lambda change: change.at)

    def durable(self, at: int) -> int:
        """Return how many of them an fsync had covered."""
        return max((covered for ended, covered in self._synced if ended < at), default=0)


class Entry(NamedTuple):
    """A name in the folder that a file was given, or (without a file) lost."""

    at: int
    name: str
    file: File | None


class Shown(NamedTuple):
    """An answer: when its first byte left, and each job in it with how far it had come."""

    at: int
    ranks: dict[str, int]


class Story:
    """What happened to the files of a database, and what was told to the clients."""

    def __init__(self, database: Path, calls: Iterator[Call]) -> None:
        self._folder = database.parent
        self._names = {f"{database.name}{suffix}" for suffix in ("", "-wal", "-journal")}
        self._current: dict[str, File] = {}
        self.entries: list[Entry] = []
        self._entries_synced: list[tuple[int, int]] = []
        self.shown: list[Shown] = []
        self._sent: dict[str, tuple[int, bytes]] = {}
        #: When something became durable.
        self.syncs: list[int] = []
        self.length = 0
        for call in calls:
            self._take(call)
            self.length = call.ended + 1
        for entry in self.entries:
            if entry.file is not None:
                entry.file.changes.sort(key=lambda change: change.at)
        self.shown.sort()

    @property
    def wal_starts(self) -> int:
        """How often the write-ahead log was begun."""
        wals = [entry.file for entry in self.entries if entry.file and entry.name.endswith("-wal")]
        return sum(
            change.offset == 0 and len(change.data or b"") == WAL_HEADER
            for wal in wals
            for change in wal.changes
        )

    def durable_entries(self, at: int) -> int:
        """Return how many changes of the folder were durable."""
        return max((covered for ended, covered in self._entries_synced if ended < at), default=0)

    def _take(self, call: Call) -> None:
        match call.name:
            case "openat" | "open" | "creat":
                name = self._name(call.data.decode(errors="replace"))
                if "O_CREAT" in call.arguments and name in self._names and name not in self._current:
                    self._current[name] = File(call.began)
                    self.entries.append(Entry(call.began, name, self._current[name]))
            case "unlink":
                name = self._name(call.data.decode(errors="replace"))
                if name in self._names:
                    del self._current[name]
                    self.entries.append(Entry(call.began, name, None))
            case "close":
                self._sent.pop(call.file, None)
            case _ if call.file.startswith(("socket:", "TCP")):
                self._send(call)
            case "fsync" | "fdatasync" if call.file == str(self._folder):
                covered = sum(entry.at < call.began for entry in self.entries)
                self._entries_synced.append((call.ended, covered))
                self.syncs.append(call.ended)
            case _ if (name := self._name(call.file)) in self._names:
                self._change(call, self._current[name])

    def _change(self, call: Call, file: File) -> None:
        match call.name:
            case "pwrite64":
                (offset,) = OFFSET.findall(call.arguments)
                assert len(call.data) == call.result, "strace has cut off what was written"
                file.changes.append(Change(call.began, int(offset), call.data))
            case "ftruncate":
                (size,) = SIZE.findall(call.arguments)
                file.changes.append(Change(call.began, int(size), None))
            case "fsync" | "fdatasync":
                file.sync(call.began, call.ended)
                self.syncs.append(call.ended)
            case _:
                raise NotImplementedError(f"{call.name} on {call.file}")

    def _name(self, path: str) -> str | None:
        """Return the name of a path in the folder."""
        return Path(path).name if path.startswith(f"{self._folder}/") else None

    def _send(self, call: Call) -> None:
        """Put the answers together that leave on a socket, maybe in several writes."""
        began, data = self._sent.pop(call.file, (call.began, b""))
        data += call.data[: call.result]
        while data.startswith(b"HTTP/1.1 "):
            head, is_whole, rest = data.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            assert not is_whole or length is not None, head
            if length is None or len(rest) < int(length[1]):
                break
            self._note(began, head, rest[: int(length[1])])
            began, data = call.began, rest[int(length[1]) :]
        if data:
            self._sent[call.file] = (began, data)

    def _note(self, at: int, head: bytes, body: bytes) -> None:
        if head.split()[1] not in {b"200", b"201"}:
            return
        told: Any = json.loads(body)
        jobs = told if isinstance(told, list) else [told]
        ranks = {job["id"]: RANKS[job["status"]] for job in jobs if "id" in job}
        if ranks:
            self.shown.append(Shown(at, ranks))


# What is left after a power cut.


class Cuts:
    """Makes the images, each from the one before: the moments that are asked for must rise."""

    def __init__(self, story: Story, chance: random.Random) -> None:
        self._story = story
        self._chance = chance
        #: Each file with how many of its changes are in it.
        self._bases: dict[int, tuple[int, bytearray]] = {}

    def durable(self, at: int, folder: Path) -> None:
        """Write only what was durable."""
        names = self._names(self._story.durable_entries(at))
        for name, file in names.items():
            (folder / name).write_bytes(self._base(file, at))

    def cut(self, at: int, folder: Path) -> None:
        """Write what was durable and something of what was not."""
        story = self._story
        made = bisect.bisect_left(story.entries, at, key=lambda entry: entry.at)
        names = self._names(self._chance.randint(story.durable_entries(at), made))
        for name, file in names.items():
            image = bytearray(self._base(file, at))
            lost = file.changes[file.durable(at) : file.written(at)]
            kept = lost[: self._chance.randint(0, len(lost))]
            if self._chance.random() < 0.5:
                share = self._chance.random()
                kept = [change for change in lost if self._chance.random() < share]
            for change in kept:
                _apply(image, change)
            (folder / name).write_bytes(image)

    def _names(self, entries: int) -> dict[str, File]:
        names: dict[str, File] = {}
        for entry in self._story.entries[:entries]:
            names.pop(entry.name, None)
            if entry.file is not None:
                names[entry.name] = entry.file
        return names

    def _base(self, file: File, at: int) -> bytearray:
        count, base = self._bases.get(id(file), (0, bytearray()))
        durable = file.durable(at)
        assert durable >= count, "the moments have to rise"
        for change in file.changes[count:durable]:
            _apply(base, change)
        self._bases[id(file)] = (durable, base)
        return base


def _apply(image: bytearray, change: Change) -> None:
    if change.data is None:
        size = change.offset
        del image[size:]
        image.extend(bytes(size - len(image)))
        return
    image.extend(bytes(max(0, change.offset - len(image))))
    image[change.offset : change.offset + len(change.data)] = change.data


def found(folder: Path, *, check: bool) -> dict[str, int]:
    """Open an image with SQLite; return how far each job in it is."""
    with contextlib.closing(sqlite3.connect(folder / NAME)) as connection:
        if check:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not connection.execute("SELECT * FROM sqlite_schema WHERE name = 'jobs'").fetchall():
            return {}
        rows = connection.execute("SELECT id, status FROM jobs").fetchall()
    return {f"{job_id:016x}": RANKS[status] for job_id, status in rows}


def missing(expected: dict[str, int], image: dict[str, int]) -> dict[str, tuple[int, int | None]]:
    """Return the jobs that are less far in the image, or not in it at all."""
    return {
        job_id: (rank, image.get(job_id)) for job_id, rank in expected.items() if image.get(job_id, -1) < rank
    }


def check_answers(story: Story) -> int:
    """See that no answer ran ahead of the disk; return how many states of the disk that took."""
    cuts = Cuts(story, random.Random(0))
    looks = 0
    answers = iter(story.shown)
    answer = next(answers, None)
    for at in [*sorted(story.syncs), story.length]:
        expected: dict[str, int] = {}
        while answer is not None and answer.at <= at:
            for job_id, rank in answer.ranks.items():
                expected[job_id] = max(rank, expected.get(job_id, 0))
            answer = next(answers, None)
        if expected:
            with tempfile.TemporaryDirectory() as folder:
                cuts.durable(at, Path(folder))
                image = found(Path(folder), check=False)
            assert not missing(expected, image), (at, missing(expected, image))
            looks += 1
    return looks


def check_cuts(story: Story, images: int, seed: int) -> None:
    """Cut the power at so many random moments, and see that nothing is missing that was shown before."""
    chance = random.Random(seed)
    cuts = Cuts(story, chance)
    expected: dict[str, int] = {}
    answers = iter(story.shown)
    answer = next(answers, None)
    for at in sorted(chance.randrange(story.length + 1) for _ in range(images)):
        while answer is not None and answer.at < at:
            for job_id, rank in answer.ranks.items():
                expected[job_id] = max(rank, expected.get(job_id, 0))
            answer = next(answers, None)
        with tempfile.TemporaryDirectory() as folder:
            cuts.cut(at, Path(folder))
            image = found(Path(folder), check=True)
        assert not missing(expected, image), (seed, at, missing(expected, image))


# The run.


def record(folder: Path, jobs: int) -> Story:
    """Run the service under strace, with clients, and stop it; return what happened."""
    trace = folder / "trace"
    database = folder / "data" / NAME
    database.parent.mkdir()
    options = ["-D", "-f", "--seccomp-bpf", "-ttt", "-y", "-xx", "-s", "100000", "-e", f"trace={CALLS}"]
    command = ["strace", *options, "-o", str(trace), *services.COMMAND]
    with (
        mock.patch.object(services, "COMMAND", command),
        running(GOFER_DATABASE=database, GOFER_SIMULATED_SECONDS=0, GOFER_WORKERS=2) as service,
    ):
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(_submit_and_look, [service] * CLIENTS, [jobs // CLIENTS] * CLIENTS))
        eventually(lambda: not service.jobs(status="pending", limit=1))
        assert service.stop(signal.SIGTERM).code == 0
        eventually(lambda: _end(trace).startswith(f"{service.master.pid} ") and "+++ exited" in _end(trace))
    return Story(database, read(trace))


def _end(trace: Path) -> str:
    with trace.open("rb") as file:
        file.seek(-min(1000, trace.stat().st_size), os.SEEK_END)
        return (file.read().decode().splitlines() or [""])[-1]


def _submit_and_look(service: Service, jobs: int) -> None:
    with contextlib.closing(HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)) as connection:
        for number in range(jobs):
            job = {"type": "email", "payload": {"text": "x" * SIZES[number % len(SIZES)]}}
            connection.request("POST", "/jobs", json.dumps(job), {"Content-Type": "application/json"})
            response = connection.getresponse()
            job_id = json.loads(response.read())["id"]
            for path in (
                "/jobs?order=newest&limit=10",
                f"/jobs?after={job_id}",
                "/jobs?status=completed&limit=1",
            ):
                connection.request("GET", path)
                connection.getresponse().read()


def told(story: Story) -> str:
    """Return what the run was like, in words; see that it was long enough to mean something."""
    completed = sum(max(shown.ranks.values()) == RANKS["completed"] for shown in story.shown)
    assert story.wal_starts > RESTARTS
    assert completed > 0
    return (
        f"{len(story.shown)} answers with jobs, {completed} of them with a completed one; {len(story.syncs)}"
        f" fsyncs; the write-ahead log was begun {story.wal_starts} times"
    )


def main() -> None:
    """Check one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--jobs", type=int, default=80)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        story = record(Path(folder), options.jobs)
    report(told(story))
    report(f"no answer ran ahead of the disk, seen at {check_answers(story)} fsyncs")
    check_cuts(story, options.images, options.seed)
    report(f"nothing was missing after {options.images} power cuts (seed {options.seed})")


if __name__ == "__main__":
    main()
