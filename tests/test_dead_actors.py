"""What clients see when an actor has stopped, or does not answer."""

import threading
import time
from collections.abc import Iterator

import falcon.testing
import pytest

from actors import Await, Settings, System, start
from actors.messages import Progress
from actors.store import vitals
from actors.store.runs import Runs
from actors.work.worker import Worker
from api import asking, create_app

#: Seconds within which a client must hear of a stopped actor: far less than an actor may take to answer.
SOON = 2.0


@pytest.fixture
def system() -> Iterator[System]:
    with start(Settings(simulated_seconds=0)) as system:
        yield system


@pytest.fixture
def client(system: System) -> falcon.testing.TestClient:
    return falcon.testing.TestClient(create_app(system))


@pytest.fixture
def stuck(system: System, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the JobStore's thread in a message until the test is over."""
    busy, over = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        busy.set()
        over.wait(60)

    monkeypatch.setattr(Runs, "note_progress", wait)
    system.store.tell(Progress("0" * 16, 0.5))
    assert busy.wait(10)
    yield
    over.set()


def request(client: falcon.testing.TestClient, name: str) -> falcon.testing.Result:
    match name:
        case "submit":
            return client.simulate_post("/jobs", json={"type": "email"})
        case "list":
            return client.simulate_get("/jobs")
        case "show":
            return client.simulate_get("/jobs/0000000000000000")
        case _:
            return client.simulate_get("/health")


def assert_unavailable(result: falcon.testing.Result, reason: str) -> None:
    assert result.status_code == 503
    assert result.headers["content-type"] == "application/problem+json"
    assert result.json["status"] == 503
    assert reason in result.json["detail"]


def test_the_service_is_well_while_its_actors_run(client: falcon.testing.TestClient) -> None:
    assert client.simulate_get("/health").json == {"status": "ok"}


def test_health_names_a_stopped_jobstore(system: System, client: falcon.testing.TestClient) -> None:
    system.store.stop()
    assert_unavailable(request(client, "health"), "JobStore")


def test_a_worker_that_has_ended_is_replaced(system: System, client: falcon.testing.TestClient) -> None:
    ended = system.workers[0]
    ended.stop()
    assert request(client, "health").json == {"status": "ok"}
    job = request(client, "submit").json
    assert system.store.ask(Await(job["id"]), block=True, timeout=30).status == "completed"
    assert [ref.is_alive() for ref in system.workers] == [True]
    assert ended not in system.workers


def test_health_names_a_worker_that_could_not_be_replaced(
    system: System, client: falcon.testing.TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Worker, "start", start)
    system.workers[0].stop()
    assert_unavailable(request(client, "health"), "Worker")
    job = request(client, "submit").json
    assert client.simulate_get(f"/jobs/{job['id']}").json["status"] == "pending"


@pytest.mark.parametrize("name", ["submit", "list", "show"])
def test_a_stopped_jobstore_is_told_to_clients_at_once(
    system: System, client: falcon.testing.TestClient, name: str
) -> None:
    system.store.stop()
    start_time = time.monotonic()
    result = request(client, name)
    assert_unavailable(result, "JobStore")
    assert int(result.headers["retry-after"]) > 0
    assert time.monotonic() - start_time < SOON


@pytest.mark.usefixtures("stuck")
@pytest.mark.parametrize("name", ["submit", "list", "show"])
def test_a_jobstore_that_does_not_answer_keeps_no_client_waiting(
    client: falcon.testing.TestClient, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(asking, "ANSWER_LIMIT", 0.2)
    start_time = time.monotonic()
    result = request(client, name)
    assert_unavailable(result, "JobStore did not answer")
    assert int(result.headers["retry-after"]) > 0
    assert 0.2 <= time.monotonic() - start_time < SOON


@pytest.mark.usefixtures("stuck")
def test_health_says_that_the_jobstore_is_stuck_and_never_waits(
    client: falcon.testing.TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert request(client, "health").status_code == 200  # Not for long enough yet.
    monkeypatch.setattr(vitals, "STUCK", 0)
    start_time = time.monotonic()
    assert_unavailable(request(client, "health"), "the JobStore has been in one step")
    assert time.monotonic() - start_time < SOON


def test_the_service_recovers_when_the_jobstore_answers_again(
    system: System, client: falcon.testing.TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    monkeypatch.setattr(Runs, "note_progress", lambda *_: over.wait(60))
    with monkeypatch.context() as short:
        short.setattr(asking, "ANSWER_LIMIT", 0.2)
        short.setattr(vitals, "STUCK", 0)
        system.store.tell(Progress("0" * 16, 0.5))
        assert request(client, "submit").status_code == 503
        assert request(client, "health").status_code == 503
    over.set()
    assert request(client, "health").status_code == 200
    assert request(client, "submit").status_code == 201
