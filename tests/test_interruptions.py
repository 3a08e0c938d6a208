"""The four ways in which a run ends without a result are never mixed up; no bystander pays for a crash."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import falcon.testing
import pytest

from actors import Settings, start
from actors.handlers import Handlers
from actors.lifecycle import Job, Status
from actors.messages import Cancel, Complete, Drain, Fail, Get, ListJobs, Release, Resume, Submit
from actors.store import life
from api import create_app
from tests.calling import EMAIL, Store, is_answered
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
        self.store.send(Drain())
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


def test_a_poison_job_is_convicted_after_four_crashes_and_no_bystander_is_failed(lives: Lives) -> None:
    ids = lives.submit(8)
    poison = ids[3]
    crashes = 0
    while lives.job(poison).status is not Status.FAILED:
        running = [job for job_id in lives.store.delivered() if (job := claimed(lives, job_id))]
        if poison in [job.id for job in running]:
            crashes += 1
            lives.crash()
        for job in running:
            if lives.job(job.id).status is Status.PROCESSING:
                lives.ask(Complete(job.id, job.attempts, None))
    assert crashes == 4
    assert (lives.job(poison).last_error or "").startswith("the process crashed during each of 4 attempts")
    lives.store.resume()
    for job_id in lives.store.delivered():
        if job := claimed(lives, job_id):
            lives.ask(Complete(job.id, job.attempts, None))
    others = {lives.job(job_id).status for job_id in ids if job_id != poison}
    assert others == {Status.COMPLETED}


def claimed(lives: Lives, job_id: str) -> Job | None:
    """Claim as a Worker does; None if there is no job, or no answer yet."""
    reply: Reply[Any] = lives.store.send(Claim(job_id))
    job: Job | None = reply.get(timeout=0) if is_answered(reply) else None
    return job


def suspects(lives: Lives, number: int) -> list[str]:
    """Return so many jobs, each of which was running during two crashes."""
    ids = lives.submit(number)
    for _ in range(2):
        for job_id in ids:
            assert lives.claim(job_id)
        lives.crash()
    return ids


def test_one_suspect_runs_at_a_time_and_the_next_is_sent_when_it_has_ended(lives: Lives) -> None:
    first, second, third = suspects(lives, 3)
    assert set(lives.store.delivered()) == {first, second, third}
    assert lives.claim(first)
    assert lives.claim(second) is None
    assert lives.claim(third) is None
    (innocent,) = lives.submit()
    assert lives.store.delivered() == [innocent]
    assert lives.claim(innocent)
    lives.ask(Complete(innocent, 1, None))
    assert lives.store.delivered() == []
    lives.ask(Complete(first, 3, None))
    assert lives.store.delivered() == [second, third]
    assert lives.claim(second)


def test_after_a_third_crash_the_suspect_runs_next_and_with_nothing_else(lives: Lives) -> None:
    poison, other = suspects(lives, 2)
    assert lives.claim(poison)
    lives.crash()
    (later,) = lives.submit()
    # Whichever is claimed first, it is the poison's turn, and what was claimed is sent again.
    lives.store.delivered()
    job = lives.claim(later)
    assert job is not None
    assert (job.id, job.attempts) == (poison, 4)
    assert lives.store.delivered() == [later]
    waiting = [lives.store.send(Claim(job_id)) for job_id in (later, other)]
    assert not any(map(is_answered, waiting))
    lives.store.resume()
    assert not any(map(is_answered, waiting))
    lives.ask(Complete(poison, 4, None))
    lives.store.resume()
    assert [reply.get(timeout=0).id for reply in waiting] == [later, other]


def test_a_claim_that_waits_for_a_suspect_is_answered_without_a_job_by_a_drain(lives: Lives) -> None:
    (poison,) = suspects(lives, 1)
    assert lives.claim(poison)
    lives.crash()
    (later,) = lives.submit()
    assert lives.claim(poison)
    waiting = lives.store.send(Claim(later))
    assert not is_answered(waiting)
    lives.store.drain()
    assert waiting.get(timeout=0) is None


def test_a_suspect_that_gives_way_stays_one_and_one_that_ends_does_not(lives: Lives) -> None:
    first, second = suspects(lives, 2)
    assert lives.claim(first)
    lives.ask(Release(first, 3))
    assert lives.claim(first)
    assert lives.claim(second) is None
    lives.ask(Fail(first, 3, "broken"))
    lives.ask(Cancel(second))


def test_a_suspect_that_is_cancelled_before_its_turn_holds_nobody_up(lives: Lives) -> None:
    (poison,) = suspects(lives, 1)
    assert lives.claim(poison)
    lives.crash()
    (later,) = lives.submit()
    lives.ask(Cancel(poison))
    job = lives.claim(later)
    assert job is not None
    assert job.id == later


# Jobs without a handler.


def test_a_job_whose_type_has_no_handler_any_more_waits_and_uses_nothing_up(tmp_path: Path) -> None:
    lives = Lives(tmp_path, handlers=Handlers({"email": len, "report": len}))
    (job_id,) = lives.submit()
    lives.options["handlers"] = Handlers({"report": len})
    lives.crash()
    assert lives.store.delivered() == [job_id]
    assert lives.claim(job_id) is None
    assert lives.store.ledger.unhandled == {"email"}
    assert lives.store.actor._vitals.unhandled == {"email"}
    assert lives.store.delivered() == []
    job = lives.job(job_id)
    assert (job.status, job.attempts) == (Status.PENDING, 0)
    lives.options["handlers"] = Handlers({"email": len})
    lives.crash()
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
