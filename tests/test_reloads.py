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

import httpx

from tests.recording import drain, recording
from tests.records import TYPE, executions, stored
from tests.reloads import LONGEST_PAUSE, Plan, Sent, faults, load, pauses, reloaded
from tests.service import PATIENCE, Service, eventually, running

#: Seconds more for a busy machine.
SLACK = 2.0


def test_reloads_under_load_lose_nothing_and_refuse_nobody(tmp_path: Path) -> None:
    report = reloaded(tmp_path, Plan(3), measuring=1, chance=random.Random(1))
    assert report.faults == []
    assert len(report.sent) > 200
    assert max(report.pauses) < LONGEST_PAUSE + SLACK


def test_reloads_while_long_jobs_run_lose_nothing_and_keep_nobody_waiting(tmp_path: Path) -> None:
    plan = Plan(2, long=3, grace=1, broken=1)
    report = reloaded(tmp_path, plan, measuring=0.3, chance=random.Random(2))
    assert report.faults == []
    assert len([one for one in report.sent if one.number < 0]) >= 4
    assert max(one.done - one.due for one in report.sent) < LONGEST_PAUSE + SLACK


def submit(service: Service, number: int, seconds: float = 0) -> httpx.Response:
    payload = {"number": number, "seconds": seconds}
    return service.client.post("/jobs", json={"type": TYPE, "payload": payload}).raise_for_status()


def begin(service: Service, number: int, seconds: float) -> str:
    job_id = str(submit(service, number, seconds).json()["id"])
    service.wait_for(job_id, "processing")
    return job_id


def test_during_a_reload_jobs_are_stored_while_one_runs_and_nobody_waits_for_it(tmp_path: Path) -> None:
    with recording(tmp_path, GOFER_WORKERS=2) as service:
        eventually(service.is_well)
        job_id = begin(service, -1, seconds=4)
        sent, moment = asyncio.run(reloading(service))
        drain(service)
        assert service.stop(signal.SIGTERM).code == 0
    earlier = [Sent(-1, moment, moment, 201, job_id)]
    assert faults(earlier + sent, tmp_path / "jobs.db", tmp_path / "records") == []
    running, *others = executions(tmp_path / "records")
    assert running.number == -1
    assert running.ended is not None
    (pause,) = pauses(sent, [moment])
    assert pause < LONGEST_PAUSE + SLACK
    stored_meanwhile = [one.number for one in sent if moment + 1 < one.done < running.ended - 0.5]
    assert len(stored_meanwhile) > 20
    assert all(run.pid != running.pid for run in others if run.number in stored_meanwhile)


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


def test_an_upgrade_takes_what_comes_while_the_old_process_waits_for_its_jobs(tmp_path: Path) -> None:
    with recording(tmp_path) as service:
        eventually(service.is_well)
        begin(service, -1, seconds=2)
        service.master.send_signal(signal.SIGUSR2)
        eventually(lambda: "waiting for the owner" in service.log)
        service.master.send_signal(signal.SIGTERM)
        eventually(lambda: "waiting_for_jobs" in service.log)
        submitted = submit(service, 1)
        assert submitted.headers["Connection"] == "close"
        assert service.wait_for(submitted.json()["id"], "completed")["attempts"] == 1
    first, second = executions(tmp_path / "records")
    assert (first.number, second.number) == (-1, 1)
    assert first.pid != second.pid


def test_hundreds_of_new_connections_wait_while_the_service_is_busy() -> None:
    with running() as service, contextlib.ExitStack() as stack:
        os.kill(service.worker, signal.SIGSTOP)
        for _ in range(500):  # One that the kernel drops tries again after a second.
            address = ("127.0.0.1", service.port)
            stack.enter_context(socket.create_connection(address, timeout=0.9))
        os.kill(service.worker, signal.SIGCONT)
        eventually(service.is_well)
