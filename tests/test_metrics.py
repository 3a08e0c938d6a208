"""Metrics: counted from what is stored, shown without waiting, in JSON or as Prometheus reads them."""

import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import falcon.testing
import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from actors import Await, Cancel, Settings, Submit, System, start
from actors.store.database import Database
from actors.store.meter import BUCKETS, MOST_LABELS, OTHER, Histogram, Meter
from api import create_app
from tests.service import PATIENCE, Service, Setting, eventually, running

TEXT = "text/plain;version=0.0.4"
#: What Prometheus asks for, in the version of this Debian and in its latest.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
LATEST = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
Samples = dict[tuple[str, ...], float]


def samples(text: str, parse: Callable[[str], Any] = plain) -> Samples:
    """Return each sample by its name and the values of its labels, in the order of their names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def fail(payload: Any) -> None:
    raise ValueError(payload)


@pytest.fixture
def system() -> Iterator[System]:
    handlers = {"echo": lambda payload: payload, "fail": fail}
    with start(Settings(), handlers=handlers) as system:
        yield system


@pytest.fixture
def client(system: System) -> falcon.testing.TestClient:
    return falcon.testing.TestClient(create_app(system, connections=lambda: 7))


def finish(system: System, *jobs: Submit) -> None:
    for job in jobs:
        system.store.ask(Await(system.store.ask(job).id), timeout=PATIENCE)


def test_json_sums_up_what_happened_and_what_there_is(
    system: System, client: falcon.testing.TestClient
) -> None:
    finish(system, Submit("echo", 1), Submit("echo", 2), Submit("fail"))
    delayed = [system.store.ask(Submit("echo", 3, delay=600)).id for _ in range(2)]
    system.store.ask(Cancel(delayed[0]))
    answer = client.simulate_get("/metrics")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["vary"] == "Accept"
    assert answer.json == {
        "total_jobs_created": 5,
        "jobs_completed": 2,
        "jobs_failed": 1,
        "jobs_cancelled": 1,
        "jobs_retried": 0,
        "jobs_in_progress": 0,
        "jobs_pending": 0,
        "jobs_delayed": 1,
        "oldest_due_seconds": 0,
        "channel_jobs": 0,
        "database_bytes": 0,
        "wal_bytes": 0,
        "connections": 7,
        "workers_alive": 1,
    }


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/json, text/plain, */*", "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/json"),
        ("image/png", "application/json"),
        ("text/plain", "text/plain; version=0.0.4; charset=utf-8"),
        (TEXT, "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0"),
        (PROMETHEUS, "application/openmetrics-text; version=1.0.0"),
        (LATEST, "application/openmetrics-text; version=1.0.0"),
    ],
)
def test_the_format_is_the_one_that_the_client_prefers(
    client: falcon.testing.TestClient, accept: str | None, media_type: str
) -> None:
    answer = client.simulate_get("/metrics", headers={} if accept is None else {"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(media_type)


@pytest.mark.parametrize(("accept", "parse"), [(TEXT, plain), (PROMETHEUS, openmetrics)])
def test_a_scrape_has_counters_gauges_and_histograms(
    system: System, client: falcon.testing.TestClient, accept: str, parse: Callable[[str], Any]
) -> None:
    finish(system, Submit("echo", 1), Submit("fail"))
    found = samples(client.simulate_get("/metrics", headers={"Accept": accept}).text, parse)
    assert found["gofer_job_events_total", "created", "echo"] == 1
    assert found["gofer_job_events_total", "completed", "echo"] == 1
    assert found["gofer_job_events_total", "completed", "fail"] == 0
    assert found["gofer_job_events_total", "failed", "fail"] == 1
    for histogram in ("gofer_job_waiting_seconds", "gofer_job_running_seconds"):
        assert found[f"{histogram}_count", "echo"] == found[f"{histogram}_bucket", "+Inf", "echo"] == 1
        assert 0 <= found[f"{histogram}_sum", "echo"] < PATIENCE
    assert (found["gofer_jobs", "completed"], found["gofer_jobs", "failed"]) == (1, 1)
    assert (found["gofer_connections",], found["gofer_workers_alive",]) == (7, 1)


def test_a_type_that_has_a_handler_is_there_before_its_first_job(client: falcon.testing.TestClient) -> None:
    found = samples(client.simulate_get("/metrics", headers={"Accept": TEXT}).text)
    assert found["gofer_job_events_total", "created", "echo"] == 0
    assert found["gofer_job_running_seconds_count", "fail"] == 0


def test_labels_are_bounded_whatever_types_there_are() -> None:
    meter = Meter(f"handled {number:05}" for number in range(60))
    for number in range(10_000):
        meter.series(f"type {number:05}").events["created"] += 1
    labels = [label for label, _ in meter.read()]
    assert len(labels) == MOST_LABELS + 1
    assert labels[:60] == [f"handled {number:05}" for number in range(60)]
    assert labels[-1] == OTHER
    assert meter.total("created") == 10_000
    assert dict(meter.read())[OTHER].events["created"] == 10_000 - 40


def test_a_histogram_counts_what_took_a_bound_or_less_in_its_bucket() -> None:
    histogram = Histogram()
    for seconds in (0.0, 0.001, 0.0011, 3600.0, 1e9):
        histogram.observe(seconds)
    assert histogram.counts == [2, 1, *[0] * (len(BUCKETS) - 3), 1, 1]
    assert histogram.sum == pytest.approx(1e9 + 3600.0021)


def test_a_scrape_does_not_wait_for_the_disk(
    system: System, client: falcon.testing.TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_stuck, may_go_on = threading.Event(), threading.Event()
    commit = Database.commit

    def stuck(database: Database) -> bool:
        is_stuck.set()
        assert may_go_on.wait(PATIENCE)
        return commit(database)

    monkeypatch.setattr(Database, "commit", stuck)
    reply = system.store.ask(Submit("echo", 1), block=False)
    assert is_stuck.wait(PATIENCE)
    try:
        for accept in ("*/*", TEXT):
            answer = client.simulate_get("/metrics", headers={"Accept": accept})
            assert answer.status_code == 200
        assert client.simulate_get("/metrics").json["total_jobs_created"] == 0
    finally:
        may_go_on.set()
    reply.get(timeout=PATIENCE)
    eventually(lambda: client.simulate_get("/metrics").json["total_jobs_created"] == 1)


def test_the_oldest_job_that_is_due_ages_and_a_delayed_one_does_not() -> None:
    with start(Settings(simulated_seconds=600)) as system:
        client = falcon.testing.TestClient(create_app(system))
        system.store.ask(Submit("email", delay=600))
        assert client.simulate_get("/metrics").json["oldest_due_seconds"] == 0
        for _ in range(3):
            system.store.ask(Submit("email"))
        eventually(lambda: client.simulate_get("/metrics").json["oldest_due_seconds"] > 0.05)
        assert client.simulate_get("/metrics").json["oldest_due_seconds"] < PATIENCE
        system.interrupts.begin_grace(0)


# A service.


def scraped(service: Service) -> Samples:
    return samples(httpx.get(f"{service.url}/metrics", headers={"Accept": TEXT}, trust_env=False).text)


def summed(found: Samples, event: str) -> float:
    return sum(value for key, value in found.items() if key[:2] == ("gofer_job_events_total", event))


def stored(found: Samples, *statuses: str) -> float:
    return sum(found["gofer_jobs", status] for status in statuses)


def adds_up(found: Samples, was_there: float) -> bool:
    """Tell whether what is left is what was there, and came, and has not ended."""
    came = was_there + summed(found, "created") + summed(found, "requeued")
    ended = sum(summed(found, event) for event in ("completed", "failed", "cancelled"))
    return stored(found, "pending", "delayed", "processing") == came - ended


def has_added_up(service: Service, was_there: float) -> bool:
    return adds_up(scraped(service), was_there)


def test_the_counters_begin_at_zero_and_add_up_to_the_states_after_kills(tmp_path: Path) -> None:
    settings: dict[str, Setting] = {"GOFER_SIMULATED_SECONDS": 0.02, "GOFER_WORKERS": 2}
    for life in range(3):
        with running(GOFER_DATABASE=tmp_path / "jobs.db", **settings) as service:
            (ready,) = [line for line in service.log.splitlines() if '"ready"' in line]
            was_there = json.loads(ready)["pending"]
            *_, last = service.submit(40)
            service.client.delete(f"/jobs/{last}")
            service.client.post(f"/jobs/{last}/retry")
            eventually(partial(has_added_up, service, was_there))  # A scrape may fall between two jobs.
            if life == 2:
                eventually(lambda: stored(scraped(service), "pending", "processing") == 0)
                assert adds_up(found := scraped(service), was_there)
                assert summed(found, "created") == 40
                assert stored(found, "completed", "failed", "cancelled") == 3 * 40
            service.stop(signal.SIGKILL)


def test_a_service_measures_its_files_and_its_connections(tmp_path: Path) -> None:
    with running(GOFER_DATABASE=tmp_path / "jobs.db") as service:
        service.submit(20)
        found = scraped(service)
        assert found["gofer_database_bytes",] == (tmp_path / "jobs.db").stat().st_size
        assert found["gofer_wal_bytes",] > 0
        with service.connect(), service.connect():
            eventually(lambda: scraped(service)["gofer_connections",] >= 3)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_is_content() -> None:
    with running(GOFER_SIMULATED_SECONDS=0) as service:
        for job_type in ("email", 'a "quoted" type', "ünïcode", "back\\slash"):
            service.submit(2, job_type)
        text = httpx.get(f"{service.url}/metrics", headers={"Accept": TEXT}, trust_env=False).text
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_requests_are_logged_only_if_that_is_asked_for() -> None:
    for asked, expected in ((0, 0), (1, 2)):
        with running(GOFER_ACCESS_LOG=asked) as service:
            service.submit()
            service.client.get("/jobs/nothing?secret=1")
            lines = [line for line in service.log.splitlines() if '"request"' in line]
            ours = [line for line in lines if '"path": "/jobs' in line]
            assert len(ours) == expected
            assert "secret" not in service.log
    assert '"method": "POST", "path": "/jobs", "status": 201, "duration_s": 0.' in ours[0]
    assert '"method": "GET", "path": "/jobs/nothing", "status": 400' in ours[1]
