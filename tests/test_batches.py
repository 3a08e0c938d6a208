"""Many jobs in one message, or one body: all or none."""

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from actors import Await, Settings, Submit, SubmitAll, start
from actors.errors import CapacityReached, InvalidJob, StorageFailed
from actors.handlers import Handlers
from actors.messages import Get, ListJobs
from tests.calling import EMAIL, Store, assert_totals
from tests.jobs import send
from tests.service import Service, running

JSON = {"Content-Type": "application/json"}
PAYLOADS = [
    "1e400",
    "0.10",
    '{"a":1,"a":2}',
    '"\\u00fc"',
    "123456789012345678901234567890",
    " [ 1 , 2 ] ",
    "null",
]
JOB = '{"type":"email"}'

# In the JobStore.


def test_jobs_submitted_together_are_stored_in_order_under_consecutive_ids_and_run() -> None:
    store = Store()
    before = store.ask(EMAIL)
    jobs = store.ask(SubmitAll(tuple(Submit(f"type {number}", number) for number in range(1000))))
    first = int(jobs[0].id, 16)
    assert [int(job.id, 16) for job in jobs] == list(range(first, first + 1000))
    assert [job.type for job in jobs] == [f"type {number}" for number in range(1000)]
    assert store.ask(ListJobs(after=before.id)) == jobs
    assert [store.ask(Get(jobs[number].id)).payload for number in (0, 999)] == [0, 999]
    assert store.ask(EMAIL).id > jobs[-1].id
    assert_totals(store.database)
    assert store.delivered()[:3] == [before.id, jobs[0].id, jobs[1].id]


@pytest.mark.parametrize("count", [0, 1001])
def test_so_many_jobs_cannot_even_be_described(count: int) -> None:
    with pytest.raises(InvalidJob, match=f"1 to 1000 .* not {count}"):
        SubmitAll((EMAIL,) * count)


@pytest.mark.parametrize(
    ("settings", "jobs", "said"),
    [
        ({"capacity": 3}, [EMAIL] * 3, "1 jobs are pending, and with 3 more .*GOFER_CAPACITY.*again later"),
        ({"capacity": 3}, [EMAIL] * 4, "send fewer together"),
        ({"capacity_delayed": 1}, [EMAIL, *[Submit("email", delay=9)] * 2], "GOFER_CAPACITY_DELAYED"),
        ({"capacity_bytes": 100}, [Submit("email", "x" * 38)] * 3, "120 more .*GOFER_CAPACITY_BYTES"),
    ],
)
def test_jobs_that_do_not_all_fit_are_refused_and_none_is_stored(
    settings: dict[str, Any], jobs: list[Submit], said: str
) -> None:
    store = Store(**settings)
    waiting = store.ask(Submit("email", delay=0)).id
    with pytest.raises(CapacityReached, match=said):
        store.ask(SubmitAll(tuple(jobs)))
    assert [job.id for job in store.ask(ListJobs())] == [waiting]
    assert_totals(store.database)


def test_delayed_and_immediate_jobs_have_room_of_their_own_in_one_array() -> None:
    store = Store(capacity=2, capacity_delayed=1)
    jobs = store.ask(SubmitAll((EMAIL, Submit("email", delay=9), EMAIL)))
    assert store.delivered() == [jobs[0].id, jobs[2].id]
    assert jobs[1].run_at is not None


def test_a_commit_that_fails_stores_none_of_them() -> None:
    store = Store()
    store.fail_writes = sqlite3.SQLITE_CONSTRAINT
    with pytest.raises(StorageFailed, match="nothing was stored"):
        store.ask(SubmitAll((EMAIL,) * 5))
    store.fail_writes = None
    assert store.ask(ListJobs()) == store.delivered() == []
    assert len(store.ask(SubmitAll((EMAIL,) * 5))) == 5


def test_one_job_without_a_handler_is_named_and_none_is_stored() -> None:
    store = Store(handlers=Handlers({"email": str}))
    with pytest.raises(InvalidJob, match=r"no handler for `type` 'other'.*at `\$\[1\]`"):
        store.ask(SubmitAll((EMAIL, Submit("other"))))
    assert store.ask(ListJobs()) == []


def test_in_python_each_payload_is_checked_before_any_is_stored() -> None:
    with start(Settings(), {"send": send}) as system:
        good, bad = Submit("send", {"to": "me"}), Submit("send", {"to": 1})
        with pytest.raises(InvalidJob, match=r"payload.to` - at `\$\[2\]`"):
            system.store.ask(SubmitAll((good, good, bad)))
        assert system.store.ask(ListJobs()) == []
        jobs = system.store.ask(SubmitAll((good, good)))
        assert [system.store.ask(Await(job.id)).result for job in jobs] == ["to me"] * 2


# Over HTTP.


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(GOFER_HANDLERS="tests.test_batches:handlers", GOFER_CAPACITY=5000) as service:
        yield service


@pytest.fixture
def nothing_stored(service: Service) -> Iterator[None]:
    before = service.jobs(order="newest", limit=1)
    yield
    assert [job["id"] for job in service.jobs(order="newest", limit=1)] == [job["id"] for job in before]


handlers = {"send": send, "email": lambda payload: payload}


def post(service: Service, body: str | bytes) -> httpx.Response:
    content = body.encode() if isinstance(body, str) else body
    return service.client.post("/jobs", content=content, headers=JSON)


def array(*jobs: str) -> str:
    return f"[{','.join(jobs)}]"


def test_an_array_is_answered_with_its_jobs_in_order(service: Service) -> None:
    answer = post(service, array(*(f'{{"type":"email","max_retries":{number}}}' for number in range(1000))))
    jobs = answer.json()
    assert answer.status_code == 201
    assert [job["max_retries"] for job in jobs] == list(range(1000))
    assert {tuple(job) for job in jobs} == {("id", "type", "status", "created_at", "attempts", "max_retries")}
    assert "location" not in answer.headers
    for job in (jobs[0], jobs[-1]):
        assert service.job(job["id"])["type"] == "email"


def test_an_array_of_one_is_answered_with_an_array_of_one(service: Service) -> None:
    answer = post(service, array(JOB))
    assert (answer.status_code, len(answer.json())) == (201, 1)


def test_each_payload_of_an_array_comes_back_digit_for_digit(service: Service) -> None:
    jobs = post(service, array(*(f'{{"type":"email","payload":{payload}}}' for payload in PAYLOADS))).json()
    for job, payload in zip(jobs, PAYLOADS, strict=True):
        shown = service.client.get(f"/jobs/{job['id']}").content
        assert f'"payload":{payload.strip()}'.encode() in shown.replace("ü".encode(), b"\\u00fc")


DEEP = f'{{"type":"email","payload":{"[" * 201}1{"]" * 201}}}'
WRONG: dict[str, tuple[str | bytes, str]] = {
    "an empty one": ("[]", "length >= 1"),
    "one of 1001": (array(*[JOB] * 1001), "length <= 1000"),
    "nested": (f"[{array(JOB)}]", "$[0]"),
    "nested later": (array(JOB, array(JOB)), "$[1]"),
    "of numbers": (array(JOB, "1"), "$[1]"),
    "with null": (array(JOB, JOB, "null"), "$[2]"),
    "with one empty object": (array(JOB, "{}"), "$[1]"),
    "with one empty type": (array(JOB, '{"type":""}'), "$[1]"),
    "with an unknown field": (array(JOB, JOB, '{"type":"email","colour":1}'), "$[2]"),
    "with a wrong delay": (array(JOB, '{"type":"email","delay":-1}'), "$[1].delay"),
    "with one type unknown": (array(JOB, JOB, JOB, '{"type":"other"}'), "$[3]"),
    "with a payload that does not fit": (array(JOB, '{"type":"send","payload":{"to":1}}'), "$[1]"),
    "with a payload too deep": (array(JOB, DEEP), "$[1]"),
    "with a payload that is not UTF-8": (b'[{"type":"email"},{"type":"email","payload":"\xff"}]', "$[1]"),
    "with a lone surrogate": (array(JOB, '{"type":"email","payload":"\\ud800"}'), "surrogate"),
    "with NaN": (array(JOB, '{"type":"email","payload":NaN}'), "malformed"),
    "with a comma too many": (f"[{JOB},]", "comma"),
    "without its end": (f"[{JOB}", "truncated"),
    "100,000 deep": ("[" * 100_000, "$[0]"),
    "two of them": (array(JOB) * 2, "trailing"),
}


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize(("body", "said"), WRONG.values(), ids=WRONG)
def test_an_array_with_anything_wrong_is_refused_and_says_where(
    service: Service, body: str | bytes, said: str
) -> None:
    answer = post(service, body)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert said in answer.json()["detail"]


def test_a_name_that_comes_twice_in_a_job_means_the_last(service: Service) -> None:
    (job,) = post(service, array('{"type":"send","type":"email","payload":1,"payload":{"b":2,"b":3}}')).json()
    assert b'"payload":{"b":2,"b":3}' in service.client.get(f"/jobs/{job['id']}").content


@pytest.mark.usefixtures("nothing_stored")
def test_an_array_over_one_mebibyte_is_refused_as_any_body(service: Service) -> None:
    job = json.dumps({"type": "email", "payload": "x" * 2000})
    assert post(service, array(*[job] * 600)).status_code == 413


def test_an_array_that_does_not_fit_is_429_and_one_that_does_is_stored() -> None:
    with running(GOFER_CAPACITY=10, GOFER_SIMULATED_SECONDS=60) as service:
        assert post(service, array(*[JOB] * 9)).status_code == 201
        answer: Any = post(service, array(*[JOB] * 5))
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert "GOFER_CAPACITY" in answer.json()["detail"]
        assert len(service.jobs()) == 9
        assert post(service, JOB).status_code == 201
