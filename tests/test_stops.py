"""Every stop goes its way, and is told in the log; the long form is tests/stops.py."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.service import TOP, Service, Setting, eventually, running, starting
from tests.stops import stopped

SETTINGS: dict[str, Setting] = {"GOFER_HANDLERS": "tests.stops:handlers", "GOFER_WORKERS": 3}


@pytest.mark.parametrize("seed", range(3, 9))
def test_a_stop_at_a_random_moment_leaves_nothing(seed: int) -> None:
    stop = stopped(seed)
    assert stop.faults == [], stop


def line(service: Service, event: str) -> dict[str, Any]:
    """Return the one line of the log about this."""
    (found,) = [line for line in service.log.splitlines() if f'"event": "{event}"' in line]
    told: dict[str, Any] = json.loads(found)
    return told


def begin(service: Service, job_type: str, payload: float) -> str:
    job = service.client.post("/jobs", json={"type": job_type, "payload": payload}).json()
    return str(service.wait_for(job["id"], "processing")["id"])


def test_a_service_that_is_ready_says_so_in_one_line(tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    with running(GOFER_DATABASE=database, **SETTINGS) as service:
        first = line(service, "ready")
        service.client.post("/jobs", json={"type": "sleep", "payload": 0, "delay": 3600})
        begin(service, "sleep", 60)
        service.stop(signal.SIGKILL)
    assert {
        "level": "info",
        "address": service.url,
        "database": str(database),
        "workers": 3,
        "engine": "threads",
        "handlers": ["sleep", "steps"],
        "pending": 0,
        "recovered": 0,
    }.items() <= first.items()
    with running(GOFER_DATABASE=database, **SETTINGS) as service:
        second = line(service, "ready")
    assert (second["pending"], second["recovered"]) == (2, 1)


def test_without_handlers_the_ready_line_says_that_jobs_are_simulated() -> None:
    with running(GOFER_SIMULATED_SECONDS=2) as service:
        assert line(service, "ready")["handlers"] == "none: each job is simulated for 2 s"


def test_a_stop_names_the_jobs_that_it_waits_for_and_those_that_it_cuts_off(tmp_path: Path) -> None:
    with running(GOFER_DATABASE=tmp_path / "jobs.db", GOFER_GRACE=1, **SETTINGS) as service:
        cut_off = begin(service, "sleep", 60)
        given_back = begin(service, "steps", 60)
        ended = service.stop(signal.SIGTERM)
        waiting = line(service, "waiting_for_jobs")
        assert waiting["jobs"] == [f"{cut_off} (sleep)", f"{given_back} (steps)"]
        assert 0 < waiting["at_most_seconds"] <= 1
        assert line(service, "job_cut_off")["job_id"] == cut_off
        assert line(service, "job_cut_off")["level"] == "warning"
        assert (line(service, "stopped")["pending"], ended.code) == (1, 0)


def test_a_stop_without_a_running_job_waits_for_none() -> None:
    with running(**SETTINGS) as service:
        service.stop(signal.SIGTERM)
        assert "waiting_for_jobs" not in service.log


def test_an_executors_process_that_outlasts_the_grace_is_killed() -> None:
    executor: dict[str, Setting] = {"GOFER_EXECUTOR": "examples.processes:executor", "GOFER_GRACE": 0}
    with running(**SETTINGS, **executor) as service:
        begin(service, "sleep", 60)
        ended = service.stop(signal.SIGTERM)
        assert '"stopped"' in service.log
        assert '"level": "error"' not in service.log
    assert ended.code == 0
    assert ended.seconds < 5


def test_an_attempt_that_is_retried_is_a_warning_and_only_the_last_one_an_error() -> None:
    with running(GOFER_MAX_RETRIES=1, **SETTINGS) as service:
        job = service.client.post("/jobs", json={"type": "sleep", "payload": "long"}).json()
        failed = service.wait_for(job["id"], "failed")
        warning, error = line(service, "job_retried"), line(service, "job_failed")
    assert (warning["level"], warning["job_id"], warning["attempt"]) == ("warning", job["id"], 1)
    assert warning["error"] == failed["last_error"]
    assert warning["at"].endswith("Z")
    assert "exception" not in warning
    assert (error["level"], error["job_id"]) == ("error", job["id"])
    assert "Traceback" in error["exception"]


@pytest.mark.parametrize("setting", ["GOFER_HANDLERS", "GOFER_EXECUTOR"])
def test_a_stop_ends_the_import_of_handlers_that_takes_long(setting: str, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    code = f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\n"
    code += "try: time.sleep(60)\nexcept Exception: pass\n"
    (tmp_path / "slowly.py").write_text(code)
    given: dict[str, Setting] = {setting: "slowly:handlers", "PYTHONPATH": f"{tmp_path}{os.pathsep}{TOP}"}
    with starting(**given) as service:
        eventually(begun.exists)
        ended = service.stop(signal.SIGTERM)
        assert "Traceback" not in service.log
    assert ended.code == 0
    assert ended.seconds < 5
