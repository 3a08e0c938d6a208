"""What lies at GOFER_DATABASE is ours and whole, or it is refused in one line and left as it was."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import shutil
import socket
import sqlite3
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from actors import ListJobs, Settings, Submit, lifecycle, start
from actors.errors import StorageFailed
from actors.store import wal
from actors.store.database import Database
from actors.store.inspection import inspect
from actors.store.schema import APPLICATION_ID, MIGRATIONS
from tests.service import refused
from tests.storage import statuses
from tests.test_database import NOW, fill, old_file

JOBS = 60
#: Those of tests/test_database.py.
OLD_JOBS = 7
PAGE = 4096


# Files of ours.


def closed(path: Path) -> None:
    """Make a database that was closed."""
    database = Database(str(path))
    fill(database, JOBS)
    database.commit()
    database.close()


def crashed(path: Path, jobs: int = JOBS) -> None:
    """Make a database whose jobs are in the WAL, each in a commit of its own."""
    with left(path):
        database = Database(str(path))
        for number in range(1, jobs + 1):
            database.insert(lifecycle.submitted(f"{number:016x}", "email", NOW), Raw(b"{}"))
            database.commit()
        keep(path)
        database.close()


def young(path: Path, version: int = 4, jobs: int = JOBS) -> None:
    """Make what a kill left of an older Gofer's new file: nothing in it, and all in the WAL."""
    with left(path), contextlib.closing(sqlite3.connect(path)) as old:
        old.execute("PRAGMA journal_mode = WAL")
        old.executescript(f"{''.join(MIGRATIONS[:version])} PRAGMA user_version = {version};")
        for number in range(1, jobs + 1):
            old.execute(
                "INSERT INTO jobs (id, type, status, created_at, attempts, max_retries, payload)"
                f" VALUES ({number}, 'email', 'pending', 0, 0, 0, '{{}}')"
            )
            old.commit()
        keep(path)
    assert path.stat().st_size == PAGE


def old(path: Path, version: int) -> None:
    """Make a file of an older version, without a WAL."""
    old_file(str(path), version)


def keep(path: Path) -> None:
    """Copy the files as they are at this moment."""
    for suffix in ("", "-wal", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(f"{path}{suffix}", f"{path}.kept{suffix}")


@contextlib.contextmanager
def left(path: Path) -> Iterator[None]:
    """Have the files as they were kept, after what closing them has made of them."""
    yield
    for suffix in ("", "-wal", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}.kept{suffix}").rename(f"{path}{suffix}")
    Path(f"{path}-shm").unlink(missing_ok=True)
    Path(f"{path}-lock").unlink(missing_ok=True)


def sql(path: Path, *statements: str) -> None:
    """Change a database as another program does."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def sql_in_wal(path: Path, *statements: str) -> None:
    """The same, and then a kill, so that the change is in the WAL."""
    with left(path), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for statement in statements:
            connection.execute(statement)
        keep(path)


def write(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)


def root(path: Path, name: str) -> int:
    """Return where the first page of a table or index begins."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
    return int(page - 1) * PAGE


# What is refused: how it comes about, and what the line says.

Kind = tuple[Callable[[Path], Any], str]
SONGS = "CREATE TABLE songs (title)"
FROZEN = "UPDATE jobs SET status = 'frozen' WHERE id = (SELECT min(id) FROM jobs WHERE status = 'pending')"


def after(*changes: Callable[[Path], Any]) -> Callable[[Path], None]:
    def all_of_them(path: Path) -> None:
        for change in changes:
            change(path)

    return all_of_them


def foreign_journal(path: Path) -> None:
    """Leave the rollback journal of another program's transaction that was broken off."""
    with left(path), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute(SONGS)
        connection.execute("BEGIN")
        connection.execute("INSERT INTO songs SELECT randomblob(9000)")
        connection.execute("CREATE TABLE more (title)")
        connection.execute("INSERT INTO more SELECT randomblob(90000)")
        keep(path)


def own_with_foreign_journal(path: Path) -> None:
    other = path.with_name("other.db")
    foreign_journal(other)
    closed(path)
    Path(f"{other}-journal").rename(f"{path}-journal")
    other.unlink()


def bind(path: Path) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as one, contextlib.chdir(path.parent):
        one.bind(path.name)


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


KINDS: dict[str, Kind] = {
    # What is not a file.
    "a folder": (Path.mkdir, "it is a folder, not a file"),
    "a pipe": (os.mkfifo, "it is a pipe"),
    "a socket": (bind, "it is a socket"),
    "a device": (lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)), "it is a device"),
    "a link to a device": (lambda path: path.symlink_to("/dev/full"), "it is a device"),
    "a link to itself": (lambda path: path.symlink_to(path), "links lead in a circle"),
    "a link to nothing": (lambda path: path.symlink_to("away.db"), "symbolic link to '.*away.db'"),
    "a WAL that is a folder": (lambda path: Path(f"{path}-wal").mkdir(), "db-wal', next to it, is a folder"),
    "a lock that is a pipe": (lambda path: os.mkfifo(f"{path}-lock"), "db-lock', next to it, is a pipe"),
    # What is not SQLite's.
    "a text": (lambda path: path.write_text("to do: buy milk\n" * 1000), "not a SQLite database"),
    "a line": (lambda path: path.write_text("x"), "not a SQLite database"),
    "zeros": (lambda path: path.write_bytes(bytes(2 * PAGE)), "not a SQLite database"),
    "noise": (lambda path: path.write_bytes(os.urandom(5 * PAGE)), "not a SQLite database"),
    "a header alone": (lambda path: path.write_bytes(b"SQLite format 3\0"), "not a SQLite database"),
    # What is not ours.
    "another program's": (lambda path: sql(path, SONGS), "not a Gofer database"),
    "another program's with a WAL": (lambda path: sql_in_wal(path, SONGS), "not a Gofer database"),
    "another program's young one": (
        after(
            lambda path: sql(path, "PRAGMA journal_mode = WAL"),
            lambda path: sql_in_wal(path, SONGS),
        ),
        "not a Gofer database",
    ),
    "another program's by its id": (
        after(closed, lambda path: sql(path, "PRAGMA application_id = 252006673")),
        "not a Gofer database",
    ),
    "one with a version": (
        lambda path: sql(path, SONGS, "PRAGMA user_version = 1"),
        "not a Gofer database",
    ),
    "one with a version and a table jobs": (
        lambda path: sql(
            path, "CREATE TABLE jobs (id INTEGER PRIMARY KEY, status TEXT)", "PRAGMA user_version = 1"
        ),
        "not a Gofer database",
    ),
    "one with a version and nothing else": (
        lambda path: sql(path, "PRAGMA user_version = 1"),
        "not a Gofer database",
    ),
    "another program's in UTF-16": (
        lambda path: sql(path, "PRAGMA encoding = 'UTF-16'", SONGS),
        "not a Gofer database",
    ),
    "one with our tables and no version": (
        lambda path: sql(path, *filter(str.strip, MIGRATIONS[0].split(";"))),
        "not a Gofer database",
    ),
    # What is newer.
    "a newer version": (after(closed, lambda path: sql(path, "PRAGMA user_version = 99")), "version 99"),
    "a newer version in the WAL": (
        after(closed, lambda path: sql_in_wal(path, "PRAGMA user_version = 99")),
        "version 99",
    ),
    "a newer version of long ago": (
        after(partial(old, version=4), lambda path: sql(path, "PRAGMA user_version = 99")),
        "a newer Gofer made it",
    ),
    "a newer file format": (after(closed, lambda path: write(path, 18, b"\3\3")), "file format is newer"),
    "an unknown status": (after(closed, lambda path: sql(path, FROZEN)), "status 'frozen'"),
    "an unknown status in the WAL": (
        after(closed, lambda path: sql_in_wal(path, FROZEN)),
        "status 'frozen'",
    ),
    "an unknown status in a young file": (
        after(young, lambda path: sql_in_wal(path, FROZEN)),
        "status 'frozen'",
    ),
    "an unknown status in an old file": (
        after(partial(old, version=1), lambda path: sql(path, FROZEN)),
        "status 'frozen'",
    ),
    # What is not whole.
    "a WAL without its database": (after(crashed, Path.unlink), "it is missing, but its jobs"),
    "a WAL next to an empty file": (after(crashed, lambda path: cut(path, 0)), "it is empty, but its jobs"),
    "a young WAL without its database": (after(young, Path.unlink), "it is missing, but its jobs"),
    "a young file with a damaged WAL": (
        after(young, lambda path: write(Path(f"{path}-wal"), 100, b"\xff" * 8)),
        "db-wal', which is damaged",
    ),
    "a young file with a WAL without a header": (
        after(young, lambda path: write(Path(f"{path}-wal"), 0, bytes(wal.HEADER))),
        "db-wal', which is damaged",
    ),
    "another database's WAL": (
        after(
            crashed,
            Path.unlink,
            lambda path: sql(path.with_name("copy"), SONGS),
            lambda path: path.with_name("copy").rename(path),
        ),
        "db-wal' is of another database",
    ),
    "a copy without a WAL next to an old WAL": (
        after(crashed, lambda path: write(path, 18, b"\1\1")),
        "db-wal' is of another database",
    ),
    "a journal without its database": (
        after(foreign_journal, Path.unlink),
        "it is missing, but .*db-journal",
    ),
    "a journal next to an empty file": (
        after(foreign_journal, lambda path: cut(path, 0)),
        "it is empty, but .*db-journal",
    ),
    "a foreign file with a journal": (foreign_journal, "not a Gofer database"),
    "a foreign journal": (own_with_foreign_journal, "db-journal' would change it"),
    "a file cut off in its middle": (after(closed, lambda path: cut(path, 3 * PAGE)), "it is cut off: 3 of"),
    "a file cut off in its header": (after(closed, lambda path: cut(path, 50)), "not a SQLite database"),
    "a file cut off in its first page": (
        after(closed, lambda path: cut(path, 1000)),
        "it is damaged: page 1 is not there",
    ),
    "a file cut off that needs its WAL": (
        after(closed, lambda path: sql_in_wal(path, "DELETE FROM totals"), lambda path: cut(path, 3 * PAGE)),
        "it is cut off",
    ),
    "a damaged magic": (after(closed, lambda path: write(path, 3, b"x")), "not a SQLite database"),
    "a damaged page size": (after(closed, lambda path: write(path, 16, b"\x03\x03")), "header is damaged"),
    "damaged fractions": (after(closed, lambda path: write(path, 21, b"\0\0\0")), "header is damaged"),
    "a damaged first page": (after(closed, lambda path: write(path, 100, b"\xff" * 100)), "is damaged"),
    "a damaged schema": (after(closed, lambda path: write(path, 2000, b"\xff" * 2000)), "damaged"),
    "a damaged table": (
        after(closed, lambda path: write(path, root(path, "jobs"), b"\xff" * PAGE)),
        "damaged",
    ),
    "a zeroed table": (
        after(closed, lambda path: write(path, root(path, "jobs"), bytes(PAGE))),
        "is damaged",
    ),
    "a damaged index": (
        after(closed, lambda path: write(path, root(path, "jobs_by_finish"), b"\xff" * PAGE)),
        "is damaged",
    ),
    "damaged cells": (
        after(closed, lambda path: write(path, root(path, "jobs_by_status") + 8, b"\xff" * 200)),
        "is damaged",
    ),
    "an index that is missing": (
        after(closed, lambda path: sql(path, "DROP INDEX jobs_by_type")),
        "'jobs_by_type' in its schema is missing",
    ),
    "a table that was changed": (
        after(closed, lambda path: sql(path, "ALTER TABLE jobs ADD COLUMN mood TEXT")),
        "'jobs' in its schema is missing or was changed",
    ),
    "our id and nothing else": (
        lambda path: sql(path, f"PRAGMA application_id = {APPLICATION_ID}"),
        "not a Gofer database",
    ),
}
# What is no place for a file: the setting, in a folder with a file, and what the line says.
PLACES = {
    "notes/jobs.db": "a part of the path is not a folder",
    "nowhere/jobs.db": "the folder '.*nowhere' does not exist",
    "a/b/c/jobs.db": "the folder '.*a/b/c' does not exist",
    "~/jobs.db": "the folder '.*~' does not exist",
    "new/": "the name of a folder",
    "sqlite:///jobs.db": "it is a URL; set it to the path alone",
    "sqlite+pysqlite:///jobs.db": "it is a URL",
    "file:jobs.db?mode=ro": "it is a URL",
    "postgres://localhost/jobs": "it is a URL",
    ":memory": "there is only :memory:",
    "x" * 300: "name is too long",
    "x" * 248: "name is too long",
    "jobs\0.db": "a path has no NUL",
}


def snapshot(folder: Path) -> dict[str, object]:
    """Return all that can be seen of a folder, but when it was last read."""
    seen: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        found = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(found.st_mode) else None
        seen[str(path)] = (found.st_ino, found.st_mode, found.st_nlink, found.st_mtime_ns, content)
    return seen


def assert_refused(database: str, line: str, folder: Path) -> None:
    before = snapshot(folder)
    with pytest.raises(StorageFailed) as refusal:
        start(Settings(database=database, simulated_seconds=0), handlers={})
    text = str(refusal.value)
    assert re.search(line, text), text
    assert text.startswith(f"GOFER_DATABASE is {database!r}, which cannot be opened: ")
    assert "; " in text
    assert "\n" not in text
    assert snapshot(folder) == before


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_ours_and_whole_is_refused_in_one_line_and_left_as_it_was(
    kind: str, tmp_path: Path
) -> None:
    make, line = KINDS[kind]
    make(tmp_path / "jobs.db")
    assert_refused(str(tmp_path / "jobs.db"), line, tmp_path)


@pytest.mark.parametrize("place", PLACES)
def test_a_place_where_no_file_can_be_is_refused_in_one_line(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").touch()
    assert_refused(place, PLACES[place], tmp_path)


@contextlib.contextmanager
def another_user() -> Iterator[None]:
    """Have the rights of a user that owns nothing."""
    if os.geteuid():
        pytest.skip("needs root, to have the rights of another user")
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("modes", "line"),
    [
        ({"jobs.db": 0o200}, "this process may not read it"),
        ({"jobs.db": 0o444}, "this process may not write it"),
        ({"jobs.db-wal": 0o644}, "this process may not write '.*jobs.db-wal'"),
        ({"jobs.db-lock": 0o600}, "this process may not read '.*jobs.db-lock'"),
        ({".": 0o555}, "this process may not write into the folder"),
        ({".": 0o700}, "Permission denied"),
    ],
    ids=str,
)
def test_what_this_process_may_not_use_is_refused_in_one_line(modes: dict[str, int], line: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        crashed(folder / "jobs.db")
        (folder / "jobs.db-lock").touch()
        for file in ("jobs.db", "jobs.db-wal", "jobs.db-lock", "."):
            (folder / file).chmod(modes.get(file, 0o777))
        before = snapshot(folder)
        with another_user(), pytest.raises(StorageFailed, match=line) as refusal:
            start(Settings(database=str(folder / "jobs.db"), simulated_seconds=0))
        assert "\n" not in str(refusal.value)
        assert snapshot(folder) == before


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused_in_one_line(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_lock(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", no_lock)
    assert_refused(
        str(tmp_path / "jobs.db"), f"{os.strerror(error)}; use a local disk that has space", tmp_path
    )


def test_a_file_that_this_process_has_open_is_refused(tmp_path: Path) -> None:
    closed(tmp_path / "jobs.db")
    with (tmp_path / "jobs.db").open("rb"):
        assert_refused(str(tmp_path / "jobs.db"), "this process has it open already", tmp_path)


@pytest.mark.parametrize("kind", ["a folder", "another program's", "a WAL without its database", "a line"])
def test_gunicorn_ends_with_one_line_for_what_it_refuses(kind: str, tmp_path: Path) -> None:
    make, line = KINDS[kind]
    make(tmp_path / "jobs.db")
    before = snapshot(tmp_path)
    ended = refused(GOFER_DATABASE=tmp_path / "jobs.db")
    assert ended.returncode not in {0, None}
    (said,) = [event for event in ended.stderr.splitlines() if "GOFER_DATABASE" in event]
    assert re.search(line, json.loads(said)["event"])
    assert "Traceback" not in ended.stderr
    assert snapshot(tmp_path) == before


# What has to open, with all that is in it.


def new_and_killed(path: Path) -> None:
    """Make a file of which a kill left an empty page, in WAL mode."""
    sql(path, "PRAGMA journal_mode = WAL")
    assert path.stat().st_size == PAGE


def killed_while_made(path: Path) -> None:
    """Make what a kill leaves of a new file of ours while its pages are written: a journal of nothing."""
    with left(path), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(SONGS)
        connection.execute("INSERT INTO songs SELECT randomblob(90000)")
        keep(path)
    with contextlib.closing(sqlite3.connect(path.with_name("other"), isolation_level=None)) as other:
        other.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    write(path, 0, path.with_name("other").read_bytes())
    path.with_name("other").unlink()
    assert Path(f"{path}-journal").stat().st_size


def killed_at_switch(path: Path) -> None:
    """Make what a kill leaves while a copy without a WAL is switched to one: a journal of its first page."""
    closed(path)
    sql(path, "PRAGMA journal_mode = DELETE")
    page = path.read_bytes()[:PAGE]
    pages = path.stat().st_size // PAGE
    header = struct.pack(">8sIIIII", bytes.fromhex("d9d505f920a163d7"), 1, 7, pages, 512, PAGE)
    checksum = (7 + sum(page[place] for place in range(PAGE - 200, 0, -200))) & 0xFFFFFFFF
    record = struct.pack(">I", 1) + page + struct.pack(">I", checksum)
    Path(f"{path}-journal").write_bytes(header.ljust(512, b"\0") + record)
    write(path, 18, b"\2\2")
    write(path, 24, b"\1\1\1\1")


OPENED: dict[str, tuple[Callable[[Path], Any], int]] = {
    "nothing": (lambda _path: None, 0),
    "an empty file": (Path.touch, 0),
    "an empty WAL alone": (lambda path: Path(f"{path}-wal").touch(), 0),
    "an empty page": (new_and_killed, 0),
    "one killed while it was made": (killed_while_made, 0),
    "one killed at the switch": (killed_at_switch, JOBS),
    "one that was closed": (closed, JOBS),
    "one that was killed": (crashed, JOBS),
    "a copy without a WAL": (after(closed, lambda path: sql(path, "PRAGMA journal_mode = DELETE")), JOBS),
    "one that was made smaller": (after(closed, lambda path: sql(path, "VACUUM", "ANALYZE")), JOBS),
    "one with an index of its owner's": (
        after(closed, lambda path: sql(path, "CREATE INDEX mine ON jobs (type, created_at)")),
        JOBS,
    ),
    "one with an ended journal": (
        after(closed, lambda path: Path(f"{path}-journal").write_bytes(bytes(512))),
        JOBS,
    ),
    **{
        f"a young file of version {version}": (partial(young, version=version), JOBS)
        for version in range(1, len(MIGRATIONS))
    },
    **{
        f"a file of version {version}": (partial(old, version=version), OLD_JOBS)
        for version in range(1, len(MIGRATIONS))
    },
}


@pytest.mark.parametrize("kind", OPENED)
def test_what_is_ours_and_whole_opens_with_every_job(kind: str, tmp_path: Path) -> None:
    make, jobs = OPENED[kind]
    path = tmp_path / "jobs.db"
    make(path)
    database = Database(str(path))
    assert len(list(database.page(ListJobs()))) == jobs
    database.close()
    assert inspect(str(path)).is_new is False
    assert len(statuses(path)) == jobs


def test_a_young_file_is_ours_before_it_has_a_wal(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "jobs.db"))
    header = (tmp_path / "jobs.db").read_bytes()[:100]
    assert int.from_bytes(header[68:72]) == APPLICATION_ID
    assert int.from_bytes(header[60:64]) == len(MIGRATIONS)
    database.close()


# Who may read it.


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_new_files_are_readable_by_their_owner_alone(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        with start(Settings(database=str(tmp_path / "jobs.db"), simulated_seconds=0)) as system:
            system.store.ask(Submit("email"))
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["jobs.db", "jobs.db-wal", "jobs.db-lock"], 0o600)


@pytest.mark.parametrize(
    ("mode", "expected"), [(0o644, 0o600), (0o666, 0o600), (0o660, 0o660), (0o640, 0o640)]
)
def test_files_that_every_user_can_read_become_private_and_those_of_a_group_stay(
    mode: int, expected: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["jobs.db", "jobs.db-wal", "jobs.db-lock"]
    crashed(tmp_path / "jobs.db")
    for name in names:
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    with (
        caplog.at_level(logging.INFO),
        start(Settings(database=str(tmp_path / "jobs.db"), simulated_seconds=0)),
    ):
        assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names] == [expected] * 3
    lines = [record for record in caplog.records if "every user could read" in record.message]
    assert len(lines) == (3 if mode != expected else 0)


# What SQLite has to be like.


def test_an_old_sqlite_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 37, 2))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.37.2")
    for database in (":memory:", str(tmp_path / "jobs.db")):
        with pytest.raises(StorageFailed, match=r"has SQLite 3\.37\.2; Gofer needs 3\.38 or later$"):
            start(Settings(database=database, simulated_seconds=0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["jobs.db", ":memory:"])
def test_no_statement_needs_a_folder_for_temporary_files(name: str, tmp_path: Path) -> None:
    database = Database(name if name == ":memory:" else str(tmp_path / name))
    assert database._connection.execute("PRAGMA temp_store").fetchone() == (2,)
    database.close()


def test_an_fsync_is_a_full_one_where_there_is_a_difference(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "jobs.db"))
    for name in ("fullfsync", "checkpoint_fullfsync"):
        assert database._connection.execute(f"PRAGMA {name}").fetchone() == (1,)
    database.close()
