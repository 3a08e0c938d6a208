"""A reload loses nothing and keeps nobody waiting for long; the long form is tests/reloads.py."""

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from tests.crashes import workers
from tests.recording import drain, recording
from tests.records import TYPE, doubled, executions, stored
from tests.reloads import LONGEST_PAUSE, Plan, Sent, faults, load, pauses, reloaded
from tests.service import PATIENCE, TOP, Service, Setting, eventually, running

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


# Reloads that change what is loaded.

#: A configuration that takes its settings from a file, as an operator may write one.
CONFIGURATION = """
import os, pathlib
for line in pathlib.Path(__file__).with_name("settings").read_text().split():
    name, _, value = line.partition("=")
    os.environ[name] = value
exec(pathlib.Path("gunicorn.conf.py").read_text())
"""


@contextlib.contextmanager
def changeable(folder: Path, **settings: Setting) -> Iterator[Service]:
    """Start a service whose handlers are in `folder/mine.py` and can be changed."""
    change(folder, 1)
    given: dict[str, Setting] = {
        "GOFER_DATABASE": folder / "jobs.db",
        "GOFER_HANDLERS": "mine:handlers",
        "GOFER_GRACE": 2,
        "GOFER_WORKERS": 3,
        "PYTHONPATH": f"{folder}{os.pathsep}{TOP}",
        "PYTHONDONTWRITEBYTECODE": 1,
        "RECORDS": folder / "records",
        **settings,
    }
    options = ["-c", str(folder / "conf.py")] if (folder / "conf.py").exists() else []
    with running(*options, **given) as service:
        yield service


def change(folder: Path, version: int | None) -> None:
    """Change the handlers; None breaks them."""
    code = "import time\nfrom tests import records\n"
    code += f"def version(_payload): return {version}\n"
    code += "handlers = {**records.handlers, 'version': version}\n"
    (folder / "mine.py").write_text("import nothing_of_that_name" if version is None else code)


def version(service: Service) -> int:
    """Return which handlers the next job is run by."""
    job = service.client.post("/jobs", json={"type": "version"}).raise_for_status().json()
    return int(service.wait_for(job["id"], "completed")["result"])


def start(service: Service, job_type: str, seconds: float) -> str:
    payload = {"number": -1, "seconds": seconds}
    job = service.client.post("/jobs", json={"type": job_type, "payload": payload}).raise_for_status().json()
    service.wait_for(job["id"], "processing")
    return str(job["id"])


def test_handlers_that_cannot_be_loaded_leave_the_service_and_its_jobs_as_they_are(tmp_path: Path) -> None:
    with changeable(tmp_path) as service:
        job = start(service, "ticks", 4)
        for _ in range(2):
            change(tmp_path, None)
            before = service.log.count("the reload failed")
            service.master.send_signal(signal.SIGHUP)
            eventually(lambda: service.log.count("the reload failed") > before)  # noqa: B023
            assert version(service) == 1
        change(tmp_path, 2)
        service.master.send_signal(signal.SIGHUP)
        eventually(partial(has_started, service, 2))
        assert version(service) == 2
        assert service.wait_for(job, "completed")["attempts"] == 1
        lines = [event for event in service.events if "nothing_of_that_name" in event]
        assert len(lines) == 2
        assert "Traceback" not in service.log
    assert len(executions(tmp_path / "records")) == 1


@pytest.mark.parametrize(
    ("wrong", "said"), [("GOFER_WORKERS=many", "GOFER_WORKERS is 'many'"), ("PORT=1", "HOST and PORT cannot")]
)
def test_a_setting_that_is_wrong_at_a_reload_is_refused_and_a_good_one_is_taken(
    wrong: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "conf.py").write_text(CONFIGURATION)
    (tmp_path / "settings").write_text("GOFER_WORKERS=1")
    with changeable(tmp_path) as service:
        (tmp_path / "settings").write_text(wrong)
        service.master.send_signal(signal.SIGHUP)
        eventually(lambda: said in service.log)
        assert "the reload was refused, and the service goes on" in service.log
        assert version(service) == 1
        (tmp_path / "settings").write_text("GOFER_WORKERS=2 PORT=0")
        service.master.send_signal(signal.SIGHUP)
        eventually(partial(has_started, service, 2))
        assert version(service) == 1
        assert [json.loads(line)["workers"] for line in service.log.splitlines() if '"ready"' in line] == [
            1,
            2,
        ]


def test_a_configuration_that_cannot_even_be_read_leaves_the_service_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "conf.py").write_text(CONFIGURATION)
    (tmp_path / "settings").write_text("GOFER_WORKERS=1")
    with changeable(tmp_path) as service:
        (tmp_path / "conf.py").write_text("this is no Python")
        service.master.send_signal(signal.SIGHUP)
        eventually(lambda: "gunicorn's configuration cannot be loaded" in service.log)
        assert service.is_well()


@pytest.mark.parametrize("is_good", [True, False], ids=["good", "broken"])
def test_a_stop_soon_after_a_reload_begins_soon(is_good: bool, tmp_path: Path) -> None:
    with changeable(tmp_path, GOFER_GRACE=1) as service:
        start(service, "ticks", 60)
        change(tmp_path, 2 if is_good else None)
        service.master.send_signal(signal.SIGHUP)
        if is_good:
            eventually(lambda: "waiting for running jobs" in service.log)
        else:
            eventually(lambda: "Booting" in service.log.partition("signal: hup")[2])
        service.master.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        eventually(partial(takes_nothing, service))
        assert time.monotonic() - begun < 2
        assert service.master.wait(PATIENCE) == 0
        assert not any(word in service.log for word in ("SIGKILL", "Traceback"))
        assert service.log.count('"event": "ready"') == 1


def takes_nothing(service: Service) -> bool:
    try:
        return service.client.post("/jobs", json={"type": "version"}).status_code == 503
    except httpx.TransportError:
        return True


def test_a_reload_during_a_reload_takes_what_has_changed_meanwhile(tmp_path: Path) -> None:
    with changeable(tmp_path) as service:
        start(service, "ticks", 1.5)
        change(tmp_path, 2)
        service.master.send_signal(signal.SIGHUP)
        eventually(lambda: "waiting for running jobs" in service.log)
        change(tmp_path, 3)
        service.master.send_signal(signal.SIGHUP)
        eventually(partial(has_started, service, 3))
        assert version(service) == 3


def test_a_reload_takes_the_place_of_one_whose_handlers_never_finish_loading(tmp_path: Path) -> None:
    with changeable(tmp_path) as service:
        (tmp_path / "mine.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(600)\n")
        service.master.send_signal(signal.SIGHUP)
        eventually(lambda: len(workers(service)) == 2)
        change(tmp_path, 2)
        service.master.send_signal(signal.SIGHUP)
        eventually(partial(has_started, service, 2))
        assert version(service) == 2


@pytest.mark.parametrize(("job_type", "attempts"), [("ticks", 2), ("steps", 1)])
def test_a_job_that_outlasts_the_grace_is_never_run_by_two_processes_at_once(
    job_type: str, attempts: int, tmp_path: Path
) -> None:
    with changeable(tmp_path, GOFER_GRACE=0) as service:
        job = start(service, job_type, 4)
        service.master.send_signal(signal.SIGHUP)
        eventually(partial(has_started, service, 2))
        assert service.wait_for(job, "completed")["attempts"] == attempts
    assert len(executions(tmp_path / "records")) == 2
    assert doubled(tmp_path / "records") == []


def test_the_service_goes_on_if_the_process_that_was_to_take_over_is_killed(tmp_path: Path) -> None:
    with changeable(tmp_path, GOFER_GRACE=4) as service:
        job = start(service, "ticks", 1)
        service.master.send_signal(signal.SIGHUP)
        eventually(lambda: "waiting for running jobs" in service.log)
        os.kill(workers(service)[-1], signal.SIGKILL)
        stored = service.client.post("/jobs", json={"type": "version"}).raise_for_status().json()
        eventually(partial(has_started, service, 2))  # Until then nobody may answer, for some seconds.
        assert service.wait_for(stored["id"], "completed")["attempts"] == 1
        assert service.job(job)["attempts"] == 1
        assert len(workers(service)) == 3


def test_an_idle_connection_stays_open_until_the_next_process_answers(tmp_path: Path) -> None:
    with changeable(tmp_path) as service, service.connect() as idle:
        start(service, "ticks", 1.5)
        service.master.send_signal(signal.SIGHUP)
        assert idle.recv(1) == b""
        assert has_started(service, 2)


# Clients.


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
        eventually(lambda: "waiting for running jobs" in service.log)
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
