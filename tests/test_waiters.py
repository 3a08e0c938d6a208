"""Many clients wait for jobs, and each hears; the long form, with its bars, is tests/waiters.py."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from tests.service import Service, answer, eventually
from tests.test_handovers import changeable, start
from tests.test_reloads import has_started
from tests.waiters import all_for_one, connections, each_its_own, get, leaving, percentile, served, stopped

NUMBER = 300
#: Seconds in which clients hear even on a busy machine.
SOON = 2.0


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with served() as service:
        yield service


def test_clients_that_wait_each_for_a_job_hear_of_its_end(service: Service) -> None:
    delays = uvloop.run(each_its_own(service, NUMBER, later=0.5))
    assert percentile(delays, 0.99) < SOON


def test_clients_that_wait_for_one_job_all_hear_of_its_end_and_take_little(service: Service) -> None:
    size, last = uvloop.run(all_for_one(service, NUMBER))
    assert size < 50_000
    assert last < SOON


def test_clients_that_leave_leave_nothing_behind(service: Service) -> None:
    assert uvloop.run(leaving(service, NUMBER, 5)) < 20_000_000
    assert connections(service) <= 1


def test_a_stop_answers_all_that_wait_with_the_job_as_it_is() -> None:
    with served() as service:
        seconds, statuses = uvloop.run(stopped(service, NUMBER, signal.SIGTERM))
        assert statuses == {"pending": NUMBER}
        assert seconds < SOON
        assert service.master.wait(5) == 0
        assert "Traceback" not in service.log


def test_a_reload_cuts_no_client_off_and_those_hear_of_an_end_whose_job_still_runs(tmp_path: Path) -> None:
    with changeable(tmp_path) as service, service.connect() as first, service.connect() as second:
        running = start(service, "ticks", 2)
        pending = service.client.post("/jobs", json={"type": "version", "delay": 3600}).json()["id"]
        first.sendall(get(running))
        second.sendall(get(pending))
        service.master.send_signal(signal.SIGHUP)
        heard, early = answer(first), answer(second)
        assert (heard.status_code, heard.json()["status"]) == (200, "completed")
        assert (early.status_code, early.json()["status"]) == (200, "pending")
        assert early.headers["connection"] == "close"
        eventually(lambda: has_started(service, 2))
        again = service.client.get(f"/jobs/{pending}", headers={"Prefer": "wait=0"})
        assert again.json()["status"] == "pending"


def test_preferences_may_come_in_several_lines(service: Service) -> None:
    with service.connect() as connection:
        job = service.client.post("/jobs", json={"type": "email"}).json()["id"]
        connection.sendall(get(job, "Prefer: respond-async\r\nPrefer: wait=20\r\n"))
        heard = answer(connection)
    assert (heard.json()["status"], heard.headers["preference-applied"]) == ("completed", "wait=20")
