"""What the log tells of each job: a line for each move, with the same fields and nothing of its payload."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from actors.messages import Cancel, Complete, CutOff, Fail, Message, RecoverCrashed, Release, Retry, Submit
from tests.calling import EMAIL, Store
from tests.service import Service, Setting, running

SECRET = "user@example.com"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("DEBUG", "gofer")
    return caplog


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return the level and the name of each event of a job."""
    records = [record for record in caplog.records if record.message.startswith("job_")]
    return [(record.levelname, record.message) for record in records]


def begun(store: Store, **options: Any) -> str:
    job_id = str(store.ask(Submit("email", {"to": SECRET}, **options)).id)
    assert store.claim(job_id) is not None
    return job_id


def test_a_job_that_completes_is_told_step_by_step(log: pytest.LogCaptureFixture) -> None:
    store = Store()
    job_id = begun(store)
    store.send(Complete(job_id, 1, SECRET, seconds=0.25))
    assert told(log) == [("DEBUG", "job_created"), ("DEBUG", "job_started"), ("DEBUG", "job_completed")]
    fields = vars(log.records[-1])
    assert (fields["job_id"], fields["type"], fields["attempt"], fields["duration_s"]) == (
        *(job_id, "email"),
        *(1, 0.25),
    )
    assert SECRET not in str([vars(record) for record in log.records])


def test_a_failure_is_a_warning_that_says_when_or_an_error_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store()
    job_id = begun(store, max_retries=1)
    store.send(Fail(job_id, 1, "OSError: no route", "Traceback: here", seconds=0.5))
    store.now += 2 * (store.ledger.get(job_id).run_at - store.now)  # type: ignore[operator]
    assert store.claim(job_id) is not None
    store.send(Fail(job_id, 2, "OSError: no route", "Traceback: there", seconds=0.5))
    assert told(caplog) == [("WARNING", "job_retried"), ("ERROR", "job_failed")]
    retried, failed = (vars(record) for record in caplog.records)
    assert retried["at"].endswith("Z")
    assert "exception" not in retried
    assert (failed["attempt"], failed["error"], failed["exception"]) == (
        *(2, "OSError: no route"),
        "Traceback: there",
    )


def test_whether_a_failure_is_final_is_the_stores_to_say_as_an_interruption_uses_no_retry(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store()
    job_id = begun(store, max_retries=1)
    store.send(CutOff(job_id, 1, "its process died"))
    for attempt in (2, 3):
        store.now += 2 * (store.ledger.get(job_id).run_at - store.now)  # type: ignore[operator]
        assert store.claim(job_id) is not None
        store.send(Fail(job_id, attempt, "ValueError"))
    assert [event for _, event in told(caplog)] == ["job_retried", "job_retried", "job_failed"]


@pytest.mark.parametrize(
    ("message", "event"), [(Release, "job_released"), (Cancel, "job_cancelled")], ids=["release", "cancel"]
)
def test_what_ends_without_a_failure_is_told_only_at_debug(
    message: type[Message], event: str, log: pytest.LogCaptureFixture
) -> None:
    store = Store()
    if message is Release:
        store.send(Release(begun(store), 1))
    else:
        store.ask(Cancel(store.ask(EMAIL).id))
    assert told(log)[-1] == ("DEBUG", event)


def test_a_requested_retry_has_a_name_of_its_own(log: pytest.LogCaptureFixture) -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.ask(Cancel(job_id))
    store.ask(Retry(job_id))
    assert told(log)[-1] == ("DEBUG", "job_requeued")


def test_what_a_crash_interrupted_is_told_with_the_reason_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "gofer")
    store = Store()
    job_id = begun(store)
    store.crash()
    lines = {record.message: vars(record) for record in caplog.records}
    assert lines["recovered"]["jobs"] == 1
    assert lines["job_recovered"]["job_id"] == job_id
    assert "crash" in lines["job_recovered"]["reason"]
    store.ask(RecoverCrashed())


def test_what_was_rolled_back_is_told_only_when_it_is_stored(log: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.fail_writes = 13
    with pytest.raises(Exception, match="nothing was stored"):
        store.ask(EMAIL)
    assert told(log) == []


def test_without_debug_nothing_is_made_of_a_job_that_does_well(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "gofer")
    monkeypatch.setattr("actors.store.journal._fields", lambda _: pytest.fail("a line was made"))
    store = Store()
    store.send(Complete(begun(store), 1, None))


# What handlers log.

EXECUTORS: dict[str, dict[str, Setting]] = {
    "in a Worker": {},
    "on threads": {"GOFER_EXECUTOR": "tests.jobs:threads"},
    "in processes": {"GOFER_EXECUTOR": "tests.jobs:one_process"},
}


@pytest.fixture(params=EXECUTORS)
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with running(GOFER_HANDLERS="tests.jobs:handlers", **EXECUTORS[request.param]) as service:
        yield service


def test_a_line_that_a_handler_logs_carries_its_job(service: Service) -> None:
    for whom in ("one", "two"):
        job = service.client.post("/jobs", json={"type": "say", "payload": {"whom": whom}}).json()
        service.wait_for(job["id"], "completed")
        lines = map(json.loads, service.log.splitlines())
        (line,) = [line for line in lines if line["event"] == f"at work for {whom}"]
        timestamp = line.pop("timestamp")
        assert timestamp.endswith("Z")
        assert line == {
            "event": f"at work for {whom}",
            "level": "warning",
            "logger": "mine",
            "place": "here",
            "job_id": job["id"],
            "type": "say",
            "attempt": 1,
        }


def test_a_line_outside_of_a_job_carries_none(caplog: pytest.LogCaptureFixture) -> None:
    from actors import log as ours  # noqa: PLC0415 - the fixture has its name

    config = ours.config("INFO")["formatters"]["gofer"].copy()
    formatter: logging.Formatter = config.pop("()")(**config)
    record = logging.LogRecord("mine", logging.INFO, __file__, 1, "idle", (), None)
    assert "job_id" not in json.loads(formatter.format(record))
    assert caplog.records == []
