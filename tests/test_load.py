"""Many jobs, many clients, and more jobs than there is room for."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.service import Service, eventually, running

CLIENTS = 32
JOBS_EACH = 625
CAPACITY = 5


def test_twenty_thousand_jobs_of_many_clients_are_each_completed_once() -> None:
    with running(GOFER_SIMULATED_SECONDS=0, GOFER_CAPACITY=100_000) as service:
        with ThreadPoolExecutor(CLIENTS) as clients:
            batches = list(clients.map(service.submit, [JOBS_EACH] * CLIENTS))
        submitted = [job_id for batch in batches for job_id in batch]
        eventually(lambda: not unfinished(service))
        walked = [job for page in service.walk(limit=1000) for job in page]
    assert len(submitted) == CLIENTS * JOBS_EACH
    assert [job["id"] for job in walked] == sorted(submitted)
    assert Counter((job["status"], job["attempts"]) for job in walked) == {("completed", 1): len(submitted)}


def test_jobs_beyond_the_capacity_are_refused_and_nowhere() -> None:
    with running(GOFER_SIMULATED_SECONDS=0.3, GOFER_CAPACITY=CAPACITY) as service:
        responses = [service.client.post("/jobs", json={"type": "email"}) for _ in range(4 * CAPACITY)]
        accepted = [response.json()["id"] for response in responses if response.status_code == 201]
        refused = [response for response in responses if response.status_code != 201]
        eventually(lambda: not unfinished(service))
        jobs = service.jobs()
    # As many as are pending, and those that a Worker took in the meantime.
    assert CAPACITY <= len(accepted) < len(responses)
    assert {response.status_code for response in refused} == {429}
    assert all(int(response.headers["retry-after"]) > 0 for response in refused)
    assert {response.headers["content-type"] for response in refused} == {"application/problem+json"}
    assert all(str(CAPACITY) in response.json()["detail"] for response in refused)
    assert [(job["id"], job["status"], job["attempts"]) for job in jobs] == [
        (job_id, "completed", 1) for job_id in accepted
    ]


def test_there_is_room_again_when_jobs_are_finished() -> None:
    with running(GOFER_SIMULATED_SECONDS=0.2, GOFER_CAPACITY=1) as service:
        while service.client.post("/jobs", json={"type": "email"}).status_code == 201:
            pass
        eventually(lambda: service.client.post("/jobs", json={"type": "email"}).status_code == 201)


def unfinished(service: Service) -> bool:
    return any(service.jobs(status=status, limit=1) for status in ("pending", "processing"))
