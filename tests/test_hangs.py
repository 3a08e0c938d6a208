"""A process that was frozen goes on; one that can never answer again is ended and replaced."""

import contextlib
import os
import signal
import time
from pathlib import Path

import httpx

from tests.service import TOP, Service, eventually, running, starting

#: Gunicorn's timeout in seconds.
LIMIT = 2
#: Holds the GIL for as long as it is asked to.
HANDLERS = """
import ctypes
def hold(seconds):
    ctypes.PyDLL(None).sleep(seconds)
handlers = {"hold": hold}
"""


def test_a_freeze_of_the_whole_service_longer_than_the_limit_costs_nothing(tmp_path: Path) -> None:
    with running("--timeout", str(LIMIT), GOFER_DATABASE=tmp_path / "jobs.db") as service:
        for _ in range(2):
            for pid in (service.master.pid, service.worker):
                os.kill(pid, signal.SIGSTOP)
            time.sleep(LIMIT + 1.5)
            service.master.send_signal(signal.SIGCONT)
            time.sleep(0.2)  # The master looks first.
            os.kill(service.worker, signal.SIGCONT)
            eventually(service.is_well)
        assert "WORKER TIMEOUT" not in service.log
        assert service.log.count("Booting worker") == 1


def test_a_worker_that_stays_frozen_is_replaced(tmp_path: Path) -> None:
    with running("--timeout", str(LIMIT), GOFER_DATABASE=tmp_path / "jobs.db") as service:
        os.kill(service.worker, signal.SIGSTOP)
        eventually(lambda: service.log.count("ASGI server listening") == 2)
        assert service.is_well()


def test_a_job_that_holds_the_gil_is_failed_and_the_service_answers_again(tmp_path: Path) -> None:
    (tmp_path / "holding.py").write_text(HANDLERS)
    with starting(
        "--timeout",
        str(LIMIT),
        GOFER_DATABASE=tmp_path / "jobs.db",
        GOFER_HANDLERS="holding:handlers",
        PYTHONPATH=f"{tmp_path}{os.pathsep}{TOP}",
    ) as service:
        eventually(service.is_well)
        begun = time.monotonic()
        with contextlib.suppress(httpx.TransportError):  # It may hold the GIL before the answer leaves.
            service.client.post("/jobs", json={"type": "hold", "payload": 600}, timeout=0.5)
        eventually(lambda: has_failed(service), 60)
        assert time.monotonic() - begun < 3 * LIMIT + 15
        assert service.is_well()


def has_failed(service: Service) -> bool:
    with contextlib.suppress(httpx.TransportError):
        jobs = service.client.get("/jobs", timeout=0.5).json()
        return [job["status"] for job in jobs] == ["failed"]
    return False
