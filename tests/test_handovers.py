"""A reload loads everything first: what cannot be loaded, or is stopped or killed, costs nothing."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.crashes import workers
from tests.records import doubled, executions
from tests.reloads import Sent, post
from tests.service import PATIENCE, TOP, Service, Setting, answer, eventually, running
from tests.test_reloads import has_started

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
            eventually(lambda: "waiting_for_jobs" in service.log)
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
        eventually(lambda: "waiting_for_jobs" in service.log)
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


def test_who_was_accepted_just_before_the_end_is_answered_though_a_job_outlasts_the_grace(
    tmp_path: Path,
) -> None:
    with changeable(tmp_path, GOFER_GRACE=0) as service:
        start(service, "ticks", 6)
        service.master.send_signal(signal.SIGHUP)
        sent = asyncio.run(posting_slowly(service))
    assert {one.outcome for one in sent} == {201}


async def posting_slowly(service: Service) -> list[Sent]:
    """Submit jobs, each by a client that is slow to send its request, until the next process has begun."""
    sending = list[asyncio.Task[Sent]]()
    while not has_started(service, 2):
        request = post(service.port, len(sending), 0.0, seconds=0, slow=0.2)
        sending.append(asyncio.create_task(request))
        await asyncio.sleep(0.01)
    return await asyncio.gather(*sending)


def test_the_service_goes_on_if_the_process_that_was_to_take_over_is_killed(tmp_path: Path) -> None:
    with changeable(tmp_path, GOFER_GRACE=4) as service:
        job = start(service, "ticks", 1)
        service.master.send_signal(signal.SIGHUP)
        eventually(lambda: "waiting_for_jobs" in service.log)
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


def test_a_request_that_comes_late_on_an_older_connection_is_answered_by_the_next_process(
    tmp_path: Path,
) -> None:
    body = b'{"type": "version"}'
    head = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with changeable(tmp_path) as service, service.connect() as connection:
        change(tmp_path, 2)
        service.master.send_signal(signal.SIGHUP)
        eventually(partial(has_started, service, 2))
        eventually(service.is_well)
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        response = answer(connection)
        assert (response.status_code, response.headers["Connection"]) == (201, "close")
        assert service.wait_for(response.json()["id"], "completed")["result"] == 2
