"""The four ways in which a run ends without a result are never mixed up; no bystander pays for a crash."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import falcon.testing
import pytest

from actors import Settings, start
from actors.handlers import Handlers
from actors.lifecycle import Job, Status
from actors.messages import Cancel, Complete, Drain, Fail, Get, Release, Resume, Retry, Run, Submit
from actors.store import life
from api import create_app
from tests.calling import EMAIL, Store
from tests.service import eventually


class Lives:
    """One process after another on a file, each with a JobStore that one calls."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path / "jobs.db"
        self.options = options
        self.store = Store(str(self.path), **options)
        self.store.recover()

    def ask(self, message: Any) -> Any:
        return self.store.ask(message)

    def submit(self, number: int = 1, **options: Any) -> list[str]:
        return [self.ask(Submit("email", **options)).id for _ in range(number)]

    def claim(self, job_id: str) -> Job | None:
        claimed: Job | None = self.store.claim(job_id)
        return claimed

    def job(self, job_id: str) -> Job:
        job: Job = self.ask(Get(job_id))
        return job

    def crash(self) -> None:
        """Go on as the next process would, after this one was killed."""
        self.store.database.close()
        self.store = Store(str(self.path), **self.options)
        self.store.recover()

    def stop(self) -> None:
        """The same, after this one was told to stop, and killed before its jobs had ended."""
        self.store.drain()
        self.crash()


@pytest.fixture
def lives(tmp_path: Path) -> Lives:
    return Lives(tmp_path)


# Cut off.


def test_any_number_of_stops_over_one_job_fails_nothing(lives: Lives) -> None:
    (job_id,) = lives.submit()
    for number in range(1, 11):
        job = lives.claim(job_id)
        assert job is not None
        assert job.attempts == number
        lives.stop()
        assert lives.job(job_id).status is Status.PENDING
    lives.claim(job_id)
    lives.ask(Complete(job_id, 11, "done"))
    assert lives.job(job_id).status is Status.COMPLETED


def test_interruptions_use_no_retry(lives: Lives) -> None:
    (job_id,) = lives.submit(max_retries=1)
    lives.claim(job_id)
    lives.stop()
    lives.claim(job_id)
    lives.crash()
    lives.claim(job_id)
    lives.ask(Fail(job_id, 3, "broken"))
    job = lives.job(job_id)
    assert (job.status, job.attempts) == (Status.PENDING, 3)
    assert job.run_at is not None
    assert (job.run_at - lives.store.now).total_seconds() == 1  # The wait after a first failure.
    lives.store.now += timedelta(seconds=1)
    lives.claim(job_id)
    lives.ask(Fail(job_id, 4, "broken"))
    assert lives.job(job_id).status is Status.FAILED


def test_a_job_that_may_run_only_once_is_failed_at_the_first_cut_and_says_so(tmp_path: Path) -> None:
    lives = Lives(tmp_path, on_crash="fail")
    (job_id,) = lives.submit()
    lives.claim(job_id)
    lives.stop()
    job = lives.job(job_id)
    assert job.status is Status.FAILED
    assert job.last_error == "the attempt was cut off by a stop (GOFER_ON_CRASH=fail)"


def test_the_mark_of_a_stop_is_taken_away_by_the_next_start(lives: Lives) -> None:
    (job_id,) = lives.submit()
    lives.claim(job_id)
    lives.stop()
    for _ in range(4):
        lives.claim(job_id)
        lives.crash()
    assert lives.job(job_id).status is Status.FAILED


def test_a_reboot_of_the_machine_makes_no_suspects(lives: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    (job_id,) = lives.submit()
    for number in range(10):
        lives.claim(job_id)
        with monkeypatch.context() as patched:
            patched.setattr(life, "boot", lambda number=number: f"boot {number}")
            lives.crash()
        assert lives.job(job_id).status is Status.PENDING


def test_a_cancelled_job_is_cancelled_however_the_process_ended(lives: Lives) -> None:
    ids = lives.submit(2)
    for job_id, end in zip(ids, (lives.stop, lives.crash), strict=True):
        lives.claim(job_id)
        lives.ask(Cancel(job_id))
        end()
        assert lives.job(job_id).status is Status.CANCELLED


# Suspects.


@pytest.mark.parametrize(("comers", "convicted"), [(0, 3), (1, 4)], ids=["alone", "in company"])
def test_a_poison_job_is_convicted_and_no_bystander_is_failed(
    lives: Lives, comers: int, convicted: int
) -> None:
    ids = lives.submit(8)
    poison = ids[3]
    crashes = 0
    while lives.job(poison).status is not Status.FAILED:
        ids += lives.submit(comers)
        running = run_all(lives)
        if poison in running:
            crashes += 1
            lives.crash()
        complete_all(lives, running)
    assert crashes == convicted
    assert (lives.job(poison).last_error or "").startswith(
        f"the process crashed during each of {convicted} attempts"
    )
    while running := run_all(lives):
        complete_all(lives, running)
    others = {lives.job(job_id).status for job_id in ids if job_id != poison}
    assert others == {Status.COMPLETED}


def run_all(lives: Lives) -> dict[str, Job]:
    """Let each job that lies in the channel begin."""
    return {job_id: job for job_id in lives.store.delivered() if (job := lives.claim(job_id))}


def complete_all(lives: Lives, running: dict[str, Job]) -> None:
    """Complete those of the jobs that still run."""
    for job in running.values():
        if lives.job(job.id).status is Status.PROCESSING:
            lives.ask(Complete(job.id, job.attempts, None))


def suspects(lives: Lives, number: int) -> list[str]:
    """Return so many jobs, each of which was running during two crashes."""
    ids = lives.submit(number)
    for _ in range(2):
        for job_id in ids:
            assert lives.claim(job_id)
        lives.crash()
    return ids


def crash_in_company(lives: Lives, suspect: str) -> None:
    """Crash while the suspect and another job are running; the other is cancelled then."""
    (other,) = lives.submit()
    assert lives.claim(suspect)
    assert lives.claim(other)
    lives.crash()
    lives.ask(Cancel(other))


def test_one_suspect_runs_at_a_time_and_the_next_is_sent_when_it_has_ended(lives: Lives) -> None:
    first, second, third = suspects(lives, 3)
    assert lives.store.delivered() == [first]
    assert lives.claim(first)
    (innocent,) = lives.submit()
    assert lives.store.delivered() == [innocent]
    assert lives.claim(innocent)
    lives.ask(Complete(innocent, 1, None))
    assert lives.store.delivered() == []
    lives.ask(Complete(first, 3, None))
    assert lives.store.delivered() == [second]
    assert lives.claim(second)
    lives.ask(Complete(second, 3, None))
    assert lives.store.delivered() == [third]


def test_a_suspect_holds_up_the_next_while_it_only_lies_in_the_channel(lives: Lives) -> None:
    first, second = suspects(lives, 2)
    lives.ask(Cancel(lives.submit()[0]))
    assert lives.store.delivered() == [first]
    lives.store.channel.send(Run(lives.store.taken[first]))
    lives.ask(Cancel(first))
    assert lives.store.delivered() == [second]


def test_after_a_third_crash_the_suspect_runs_next_and_with_nothing_else(lives: Lives) -> None:
    poison, other = suspects(lives, 2)
    crash_in_company(lives, poison)
    (later,) = lives.submit()
    # It is the poison's turn, and only its end brings that of the others.
    assert lives.store.delivered() == [poison]
    job = lives.claim(poison)
    assert job is not None
    assert job.attempts == 4
    assert lives.submit()
    assert lives.store.delivered() == []
    lives.ask(Complete(poison, 4, None))
    assert lives.store.delivered()[:2] == [other, later]


def test_a_job_that_must_run_alone_waits_until_nothing_runs(lives: Lives) -> None:
    poison, other = suspects(lives, 2)
    crash_in_company(lives, poison)
    assert lives.claim(poison)
    (later,) = lives.submit()
    lives.ask(Release(poison, 4))
    running = run_all(lives)
    assert list(running) == [other, later]
    lives.submit()
    assert lives.store.delivered() == []
    complete_all(lives, running)
    assert lives.store.delivered() == [poison]


def test_what_waits_for_a_suspect_is_not_sent_when_a_drain_has_begun(lives: Lives) -> None:
    (poison,) = suspects(lives, 1)
    crash_in_company(lives, poison)
    (later,) = lives.submit()
    assert lives.claim(poison)
    lives.store.drain()
    lives.ask(Complete(poison, 4, None))
    assert lives.store.channel.withdraw(lambda _: True) == []
    assert lives.job(later).status is Status.PENDING


def test_a_suspect_that_gives_way_stays_one_and_one_that_ends_does_not(lives: Lives) -> None:
    first, second = suspects(lives, 2)
    assert lives.claim(first)
    lives.ask(Release(first, 3))
    assert lives.store.delivered() == [second]
    assert lives.claim(second)
    lives.ask(Fail(second, 3, "broken"))
    lives.ask(Retry(second))
    assert lives.store.delivered() == [first, second]


def test_a_suspect_that_is_cancelled_before_its_turn_holds_nobody_up(lives: Lives) -> None:
    (poison,) = suspects(lives, 1)
    crash_in_company(lives, poison)
    (later,) = lives.submit()
    lives.ask(Cancel(poison))
    assert lives.store.delivered() == [later]


# Jobs without a handler.


def test_a_job_whose_type_has_no_handler_any_more_waits_and_uses_nothing_up(tmp_path: Path) -> None:
    lives = Lives(tmp_path, handlers=Handlers({"email": len, "report": len}))
    (job_id,) = lives.submit()
    lives.options["handlers"] = Handlers({"report": len})
    lives.stop()
    assert lives.store.delivered() == []
    assert lives.store.ledger.unhandled == {"email"}
    lives.ask(Submit("report"))
    assert lives.store.actor._vitals.unhandled == {"email"}
    job = lives.job(job_id)
    assert (job.status, job.attempts) == (Status.PENDING, 0)
    lives.options["handlers"] = Handlers({"email": len})
    lives.stop()
    assert lives.store.delivered() == [job_id]
    assert lives.claim(job_id)


def test_a_mark_that_cannot_be_stored_on_a_full_disk_is_stored_later(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "jobs.db"))
    store.recover()
    job = store.ask(EMAIL)
    store.claim(job.id)
    store.fail_writes = 13  # SQLITE_FULL
    store.send(Drain())
    store.fail_writes = None
    store.send(Resume())
    (is_stopping,) = store.database._connection.execute("SELECT is_stopping FROM life").fetchone()
    assert is_stopping == 1


def test_health_names_the_types_whose_jobs_wait_for_a_handler_until_they_are_cancelled(
    tmp_path: Path,
) -> None:
    settings = Settings(database=str(tmp_path / "jobs.db"))
    lives = Lives(tmp_path)
    ids = lives.submit(2)
    lives.store.database.close()
    with start(settings, {"report": len}) as system:
        client = falcon.testing.TestClient(create_app(system))
        problem = "jobs of type 'email' wait: it has no handler; add one, or cancel them"
        eventually(lambda: client.simulate_get("/health").json["status"] == "degraded")
        degraded = client.simulate_get("/health")
        assert (degraded.status_code, degraded.json["problems"]) == (200, [problem])
        system.store.ask(Cancel(ids[0]))
        assert client.simulate_get("/health").json["status"] == "degraded"
        system.store.ask(Cancel(ids[1]))
        eventually(lambda: client.simulate_get("/health").json == {"status": "ok"})
