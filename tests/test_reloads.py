"""A reload loses nothing and keeps nobody waiting for long; the long form is tests/reloads.py."""

import asyncio
import contextlib
import itertools
import os
import random
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

from tests.recording import drain, recording
from tests.records import executions, stored
from tests.reloads import LONGEST_PAUSE, SECONDS, Sent, faults, load, pauses, reloaded
from tests.service import PATIENCE, Service, answer, eventually, running

#: Seconds more for a busy machine.
SLACK = 2.0


def test_reloads_under_load_lose_nothing_and_refuse_nobody(tmp_path: Path) -> None:
    report = reloaded(tmp_path, 3, measuring=1, chance=random.Random(1))
    assert report.faults == []
    assert len(report.sent) > 200
    assert max(report.pauses) < SECONDS + LONGEST_PAUSE + SLACK


def test_a_reload_waits_for_the_running_job_and_not_much_longer(tmp_path: Path) -> None:
    with recording(tmp_path, GOFER_WORKERS=1) as service:
        eventually(service.is_well)
        job = {"type": "record", "payload": {"number": -1, "seconds": 4}}
        job_id = service.client.post("/jobs", json=job).json()["id"]
        service.wait_for(job_id, "processing")
        sent, moment = asyncio.run(reloading(service))
        drain(service)
        assert service.stop(signal.SIGTERM).code == 0
    earlier = [Sent(-1, moment, moment, 201, job_id)]
    assert faults(earlier + sent, tmp_path / "jobs.db", tmp_path / "records") == []
    (end,) = [run.ended for run in executions(tmp_path / "records") if run.number == -1]
    assert end is not None
    (pause,) = pauses(sent, [moment])
    assert pause < end - moment + LONGEST_PAUSE + SLACK


async def reloading(service: Service) -> tuple[list[Sent], float]:
    """Reload once, with a little load."""
    stopped = asyncio.Event()
    loading = asyncio.ensure_future(load(service.port, itertools.count(), 20, stopped))
    moment = time.monotonic()
    service.master.send_signal(signal.SIGHUP)
    await asyncio.to_thread(eventually, partial(has_started, service, 2))
    stopped.set()
    return await loading, moment


def test_clients_that_keep_their_connections_are_told_when_these_end(tmp_path: Path) -> None:
    stopped = threading.Event()
    with running(GOFER_DATABASE=tmp_path / "jobs.db") as service, ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(times_told_to_leave, service.port, stopped) for _ in range(4)]
        for starts in (2, 3, 4):
            service.master.send_signal(signal.SIGHUP)
            eventually(partial(has_started, service, starts))
        stopped.set()
        assert all(client.result() > 0 for client in clients)


def has_started(service: Service, times: int) -> bool:
    return service.log.count("ASGI server listening") == times


def times_told_to_leave(port: int, stopped: threading.Event) -> int:
    """Ask without a pause, on the same connection until an answer says that it is the last there."""
    told = 0
    while not stopped.is_set():
        with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
            connection.connect()
            connection.auto_open = 0
            is_last = False
            while not (is_last or stopped.is_set()):
                connection.request("GET", "/jobs")
                response = connection.getresponse()
                assert (response.status, response.read()) == (200, b"[]")
                is_last = response.getheader("Connection") == "close"
            told += is_last
    return told


def test_a_reload_in_memory_says_so_and_starts_empty() -> None:
    with running(GOFER_SIMULATED_SECONDS=0) as service:
        service.submit(3)
        service.master.send_signal(signal.SIGHUP)
        eventually(partial(has_started, service, 2))
        eventually(lambda: not Path(f"/proc/{service.worker}").exists())
        assert service.jobs() == []
        (line,) = [event for event in service.events if "memory" in event]
        assert "starts without any" in line


def test_an_upgrade_to_a_new_master_refuses_nobody(tmp_path: Path) -> None:
    with recording(tmp_path, GOFER_WORKERS=2) as service:
        eventually(service.is_well)
        sent = asyncio.run(upgrading(service))
        drain(service)
    assert {one.outcome for one in sent} == {201}
    assert {(job.status, job.attempts) for job in stored(tmp_path / "jobs.db")} == {("completed", 1)}


async def upgrading(service: Service) -> list[Sent]:
    """Start a new master and stop the old one, with some load."""
    stopped = asyncio.Event()
    loading = asyncio.ensure_future(load(service.port, itertools.count(), 200, stopped))
    service.master.send_signal(signal.SIGUSR2)
    await asyncio.to_thread(eventually, lambda: "waiting for the owner" in service.log)
    await asyncio.to_thread(service.stop, signal.SIGTERM)
    await asyncio.to_thread(eventually, partial(has_started, service, 2))
    stopped.set()
    return await loading


def test_an_upgrade_takes_what_comes_on_connections_that_are_open(tmp_path: Path) -> None:
    body = b'{"type": "record", "payload": {"number": 1}}'
    head = b"POST /jobs HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with recording(tmp_path) as service, service.connect() as connection:
        eventually(service.is_well)
        service.master.send_signal(signal.SIGUSR2)
        eventually(lambda: "waiting for the owner" in service.log)
        service.master.send_signal(signal.SIGTERM)
        eventually(lambda: "Worker shutting down" in service.log)
        connection.sendall(head % len(body) + body)
        response = answer(connection)
        assert response.status_code == 201
        assert service.wait_for(response.json()["id"], "completed")["attempts"] == 1


def test_hundreds_of_new_connections_wait_while_the_service_is_busy() -> None:
    with running() as service, contextlib.ExitStack() as stack:
        os.kill(service.worker, signal.SIGSTOP)
        for _ in range(500):  # One that the kernel drops tries again after a second.
            address = ("127.0.0.1", service.port)
            stack.enter_context(socket.create_connection(address, timeout=0.9))
        os.kill(service.worker, signal.SIGCONT)
        eventually(service.is_well)
