"""A live database is copied while its owner is frozen, as the README says."""

import itertools
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from actors import Settings, start
from actors.errors import StorageFailed
from tests.service import Service, running
from tests.storage import FINISH, OPEN, peek, run_to_the_end, statuses

CLIENTS = 4
COPIES = 4
#: What an operator does, in the folder of the database.
COPY = 'owner=$(cat jobs.db-lock); kill -STOP $owner; cp jobs.db jobs.db-wal "$0"; kill -CONT $owner'


class Load:
    """Clients that submit jobs all the time, and the ids that they were told."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._is_over = threading.Event()
        #: Appended to from many threads; each append is one step.
        self.admitted: list[str] = []

    def submit(self, client: int) -> None:
        """Submit one after the other, of several sizes, until the load is over."""
        for number in itertools.count():
            if self._is_over.is_set():
                return
            payload = {"text": "x" * ((client + number) % 5 * 4_000)}
            answer = self._service.client.post("/jobs", json={"type": "email", "payload": payload})
            assert answer.status_code == 201, answer.text
            self.admitted.append(answer.json()["id"])

    def end(self) -> None:
        """Submit no more."""
        self._is_over.set()

    def wait_for(self, jobs: int) -> None:
        """Wait until so many more were admitted."""
        goal = len(self.admitted) + jobs
        while len(self.admitted) < goal and not self._is_over.is_set():
            self._is_over.wait(0.01)


def test_copies_made_while_the_owner_is_frozen_hold_every_job_admitted_before(tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    copies: list[tuple[Path, list[str]]] = []
    with running(GOFER_DATABASE=database, GOFER_SIMULATED_SECONDS=0.01, GOFER_CAPACITY=100_000) as service:
        load = Load(service)
        with ThreadPoolExecutor(CLIENTS) as clients:
            clients_ends = [clients.submit(load.submit, client) for client in range(CLIENTS)]
            try:
                for number in range(COPIES):
                    load.wait_for(150)
                    folder = tmp_path / f"backup {number}"
                    folder.mkdir()
                    admitted = load.admitted.copy()
                    subprocess.run(["sh", "-e", "-c", COPY, folder], cwd=tmp_path, timeout=FINISH, check=True)
                    copies.append((folder, admitted))
                load.wait_for(50)
                assert_owned(database)
            finally:
                load.end()
            for end in clients_ends:
                end.result()
        assert service.log.count("Booting worker") == 1
        assert service.stop(signal.SIGTERM).code == 0
    assert statuses(database).keys() == set(load.admitted)
    for folder, admitted in copies:
        assert_sound(folder / "jobs.db", admitted)


def assert_owned(database: Path) -> None:
    with pytest.raises(StorageFailed, match="belongs to process"):
        start(Settings(database=str(database), simulated_seconds=0))


def assert_sound(copy: Path, admitted: list[str]) -> None:
    copied = peek(copy)
    assert copied.keys() >= set(admitted)
    assert set(copied.values()) & set(OPEN)
    ended = run_to_the_end(copy)
    assert ended == dict.fromkeys(copied, "completed")
