"""The write-ahead log is read as SQLite reads it, and what is left over of it is said at the start."""

import contextlib
import logging
import os
import random
import shutil
import sqlite3
import struct
import time
from pathlib import Path

import pytest

from actors import ListJobs
from actors.store import wal
from actors.store.database import Database
from tests.storage import report
from tests.test_files import JOBS, closed, crashed, keep, left, write

PAGE = 4096
STEP = PAGE + wal.FRAME


def read(path: Path) -> wal.Wal:
    file = os.open(path, os.O_RDONLY)
    try:
        return wal.read(file)
    finally:
        os.close(file)


def taken_by_sqlite(path: Path, folder: Path) -> tuple[int, int]:
    """Return how many frames SQLite takes, and how many pages the database then has."""
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", folder / f"copy.db{suffix}")
    with contextlib.closing(sqlite3.connect(folder / "copy.db")) as copy:
        _, frames, _ = copy.execute("PRAGMA wal_checkpoint").fetchone()
        (pages,) = copy.execute("PRAGMA page_count").fetchone()
    return frames, pages


def filled(path: Path, page_size: int, rows: int, chance: random.Random) -> None:
    """Make a database of which much is in the WAL, where this begins anew in between."""
    with left(path), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA wal_autocheckpoint = 200")
        connection.execute("CREATE TABLE things (thing)")
        for _ in range(rows):
            connection.execute("INSERT INTO things SELECT randomblob(?)", (chance.randrange(20_000),))
        keep(path)


@pytest.mark.parametrize("page_size", [512, PAGE, 65536])
@pytest.mark.parametrize("seed", range(4))
def test_the_frames_that_are_taken_are_those_that_sqlite_takes_whatever_is_damaged(
    page_size: int, seed: int, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    path = tmp_path / "jobs.db"
    filled(path, page_size, 100 + seed * 7, chance)
    log = Path(f"{path}-wal")
    whole = read(log)
    assert (whole.taken, whole.pages) == taken_by_sqlite(path, tmp_path)
    assert (whole.left, whole.is_damaged) == (0, False)
    for _ in range(3):
        place = chance.randrange(log.stat().st_size)
        before = log.read_bytes()
        write(log, place, bytes([before[place] ^ 1 << chance.randrange(8)]))
        found = read(log)
        frames, pages = taken_by_sqlite(path, tmp_path)
        assert found.taken == frames
        assert found.taken == 0 or found.pages == pages
        assert whole.taken - found.taken - 1 <= found.left <= whole.taken - found.taken
        log.write_bytes(before[: chance.randrange(len(before))])
        assert read(log).taken == taken_by_sqlite(path, tmp_path)[0]
        log.write_bytes(before)


def test_a_log_of_a_big_endian_machine_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    crashed(path)
    log = Path(f"{path}-wal")
    whole = read(log)
    data = bytearray(log.read_bytes())
    struct.pack_into(">I", data, 0, wal.MAGIC | 1)
    state = wal._advanced((0, 0), struct.unpack_from(">6I", data))
    struct.pack_into(">II", data, 24, *state)
    for place in range(wal.HEADER, whole.taken * STEP, STEP):
        state = wal._advanced(state, struct.unpack_from(">II", data, place))
        state = wal._advanced(state, struct.unpack_from(f">{PAGE // 4}I", data, place + wal.FRAME))
        struct.pack_into(">II", data, place + 16, *state)
    log.write_bytes(data)
    assert read(log) == whole
    assert taken_by_sqlite(path, tmp_path) == (whole.taken, whole.pages)


def test_32_mebibytes_are_read_in_a_moment(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("CREATE TABLE things AS SELECT zeroblob(32 * 1024 * 1024)")
        begun = time.process_time()
        found = read(Path(f"{path}-wal"))
        report(f"{found.taken} frames in {time.process_time() - begun:.2f} s of CPU time")
        assert found.taken > 8000
        assert time.process_time() - begun < 5  # On any machine; a loop in Python takes four times as long.


# What the log says.


def told(path: Path, caplog: pytest.LogCaptureFixture) -> tuple[int, list[logging.LogRecord]]:
    """Open the database; return how many jobs are in it, and what was logged about its WAL."""
    with caplog.at_level(logging.INFO):
        database = Database(str(path))
    jobs = len(list(database.page(ListJobs())))
    database.close()
    return jobs, [record for record in caplog.records if "write-ahead log" in record.message]


def test_a_start_on_a_file_that_was_closed_says_nothing_of_a_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    closed(tmp_path / "jobs.db")
    assert told(tmp_path / "jobs.db", caplog) == (JOBS, [])


def test_a_start_after_a_kill_says_how_many_frames_were_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "jobs.db"
    crashed(path)
    frames = (Path(f"{path}-wal").stat().st_size - wal.HEADER) // STEP
    jobs, (line,) = told(path, caplog)
    assert (jobs, line.levelname, vars(line)["frames_taken"]) == (JOBS, "INFO", frames)


def test_a_start_on_a_damaged_log_warns_of_the_frames_that_were_left_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "jobs.db"
    crashed(path)
    log = Path(f"{path}-wal")
    frames = (log.stat().st_size - wal.HEADER) // STEP
    write(log, wal.HEADER + frames // 2 * STEP + 1000, b"\xff" * 8)
    jobs, (line,) = told(path, caplog)
    assert 0 < jobs < JOBS
    assert line.levelname == "WARNING"
    assert "it is damaged, and jobs may be missing" in line.message
    assert vars(line)["frames_taken"] <= frames // 2
    assert vars(line)["frames_taken"] + vars(line)["frames_left_over"] == frames


def test_a_start_on_a_commit_that_was_broken_off_warns_without_talk_of_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "jobs.db"
    crashed(path)
    log = Path(f"{path}-wal")
    whole = read(log)
    data = log.read_bytes()
    place = wal.HEADER + (whole.taken - 1) * STEP
    log.write_bytes(data + data[place : place + 4] + bytes(4) + data[place + 8 : place + STEP])
    jobs, (line,) = told(path, caplog)
    assert jobs == JOBS
    assert line.levelname == "WARNING"
    assert "a commit that was broken off" in line.message
    assert (vars(line)["frames_taken"], vars(line)["frames_left_over"]) == (whole.taken, 1)
