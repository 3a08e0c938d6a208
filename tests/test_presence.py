"""A database that is replaced or deleted under the running service: nothing more is acknowledged."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pykka
import pytest

from actors import Await, Settings, Submit, start
from actors.errors import OutcomeInDoubt, StorageFailed
from actors.store.presence import Presence
from tests.service import PATIENCE, eventually, running
from tests.storage import statuses

LOOK = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM jobs').fetchall()"
JOBS = 20


def look(database: Path) -> None:
    """Read the database from another process, as a curious person does."""
    command = [sys.executable, "-c", LOOK, str(database)]
    subprocess.run(command, check=True, timeout=PATIENCE)


def copied(payload: dict[str, str]) -> None:
    """Copy the database, as a handler does that is to make a backup; the close drops the locks."""
    shutil.copy(payload["database"], f"{payload['database']}.copy")


def copy_and_look(store: Any, database: Path) -> None:
    job = store.ask(Submit("copy", {"database": str(database)}))
    store.ask(Await(job.id))
    look(database)
    assert not Path(f"{database}-wal").exists()


def replace(_store: Any, database: Path) -> None:
    shutil.copy(database, f"{database}.copy")
    Path(f"{database}.copy").rename(database)


def make_another_file(database: Path) -> None:
    database.with_name("another").touch()


@pytest.mark.parametrize("before", [lambda _: None, make_another_file], ids=["at rest", "after a change"])
@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("age", [0, 60])
def test_a_file_that_is_gone_is_noticed_however_long_ago_the_folder_has_changed(
    age: int, suffix: str, before: Callable[[Path], None], tmp_path: Path
) -> None:
    database = tmp_path / "jobs.db"
    for path in (database, Path(f"{database}-wal")):
        path.touch()
    then = time.time() - age
    os.utime(tmp_path, (then, then))
    presence = Presence(str(database))
    presence.check()
    before(database)
    presence.check()
    Path(f"{database}{suffix}").unlink()
    for _ in range(2):
        with pytest.raises(OutcomeInDoubt, match=f"jobs.db{suffix} was replaced or deleted"):
            presence.check()


def test_a_folder_that_is_gone_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("jobs.db", "jobs.db-wal"):
        (folder / name).touch()
    presence = Presence(str(folder / "jobs.db"))
    presence.check()
    folder.rename(tmp_path / "away")
    with pytest.raises(OutcomeInDoubt, match="folder was replaced or deleted"):
        presence.check()


@pytest.mark.parametrize(
    ("harm", "file"),
    [
        (copy_and_look, "jobs.db-wal"),
        (lambda _, database: Path(f"{database}-wal").unlink(), "jobs.db-wal"),
        (lambda _, database: Path(database).unlink(), "jobs.db"),
        (replace, "jobs.db"),
    ],
    ids=["copied and looked at", "WAL deleted", "file deleted", "file replaced"],
)
def test_nothing_is_acknowledged_once_a_file_is_no_longer_the_one_that_was_opened(
    harm: Callable[[Any, Path], Any], file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = tmp_path / "jobs.db"
    lost = threading.Event()
    settings = Settings(database=str(database), simulated_seconds=0)
    with start(settings, handlers={"copy": copied, "wait": lambda _: None}, lost=lost.set) as system:
        store: Any = system.store
        told = [store.ask(Submit("wait", {})).id for _ in range(JOBS)]
        for job_id in told:
            store.ask(Await(job_id))
        harm(store, database)
        with pytest.raises(OutcomeInDoubt, match=f"{file} was replaced or deleted while it was in use"):
            store.ask(Submit("wait", {}))
        assert lost.wait(PATIENCE)
        with pytest.raises((StorageFailed, pykka.ActorDeadError)):
            store.ask(Submit("wait", {}))
    (line,) = [record for record in caplog.records if "the storage is broken" in record.message]
    assert "was replaced or deleted" in str(line.exc_info and line.exc_info[1])
    if file == "jobs.db-wal":
        assert set(told) <= statuses(database).keys()
    elif not database.exists():
        with pytest.raises(StorageFailed, match="it is missing, but its jobs may be in"):
            start(settings)


def test_a_service_whose_wal_was_deleted_goes_on_in_a_new_process_with_every_job(tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    with running(GOFER_DATABASE=database, GOFER_SIMULATED_SECONDS=0) as service:
        told = service.submit(JOBS)
        eventually(lambda: not service.jobs(status="pending") and not service.jobs(status="processing"))
        Path(f"{database}-wal").unlink()
        assert service.client.post("/jobs", json={"type": "email"}).status_code == 503
        eventually(lambda: service.log.count("Booting worker") == 2)
        eventually(service.is_well)
        told += service.submit(JOBS)
        assert service.stop(signal.SIGTERM).code == 0
    assert set(told) <= statuses(database).keys()
