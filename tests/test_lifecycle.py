"""The moves of a job, without storage or threads."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import lifecycle
from actors.errors import IllegalMove
from actors.lifecycle import MOVES, Job, Status
from actors.opaque import encode

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
README = Path(__file__).parent.parent / "README.md"


def pending() -> Job:
    return lifecycle.submitted("00000000000000aa", "email", NOW)


def processing() -> Job:
    return lifecycle.claimed(pending(), NOW)


def test_a_submitted_job_is_pending_and_was_never_claimed() -> None:
    job = pending()
    assert (job.status, job.attempts, job.started_at) == (Status.PENDING, 0, None)


def test_a_claim_starts_an_attempt() -> None:
    job = processing()
    assert (job.status, job.attempts, job.started_at) == (Status.PROCESSING, 1, NOW)


def test_a_completed_job_has_its_result_and_the_time_it_finished() -> None:
    job = lifecycle.completed(processing(), 1, encode({"sent": True}), NOW)
    assert (job.status, job.result, job.finished_at) == (Status.COMPLETED, {"sent": True}, NOW)


def test_a_failed_job_has_its_error() -> None:
    job = lifecycle.failed(processing(), 1, "ValueError: no such user", NOW)
    assert (job.status, job.last_error) == (Status.FAILED, "ValueError: no such user")


def test_a_failed_attempt_with_retries_left_backs_off() -> None:
    job = lifecycle.backed_off(processing(), 1, "ValueError: not yet", NOW, 2.5)
    assert (job.status, job.attempts, job.last_error) == (Status.PENDING, 1, "ValueError: not yet")
    assert job.run_at == NOW + timedelta(seconds=2.5)
    assert lifecycle.claimed(job, NOW).run_at is None


@given(attempt=st.integers(1, 10_000), chance=st.floats(0, 1))
def test_a_backoff_doubles_with_full_jitter_up_to_its_cap(attempt: int, chance: float) -> None:
    longest = lifecycle.backoff(attempt, 1.0, 1.0)
    assert longest == min(300.0, 2.0 ** min(attempt - 1, 64))
    assert lifecycle.backoff(attempt, 1.0, chance) == chance * longest


def test_a_pending_job_and_a_running_one_can_be_cancelled() -> None:
    assert lifecycle.cancelled(pending(), NOW).status is Status.CANCELLED
    job = lifecycle.cancelled_while_running(processing(), 1, NOW)
    assert (job.status, job.finished_at) == (Status.CANCELLED, NOW)


def test_a_retried_job_is_pending_and_its_attempts_stay_counted() -> None:
    job = lifecycle.retried(lifecycle.failed(processing(), 1, "broken", NOW))
    assert (job.status, job.attempts, job.finished_at) == (Status.PENDING, 1, None)


def test_a_released_job_is_as_it_was_before_its_claim() -> None:
    assert lifecycle.released(processing(), 1) == pending()


def recovered(crashes: int, *, was_alone: bool = True, at_most_once: bool = False) -> Job:
    return lifecycle.crashed(processing(), crashes, NOW, was_alone=was_alone, at_most_once=at_most_once)


def test_a_recovered_job_has_used_the_attempt_up() -> None:
    job = recovered(crashes=1)
    assert (job.status, job.attempts, job.started_at) == (Status.PENDING, 1, None)


def test_a_job_that_ran_at_three_crashes_in_a_row_and_alone_at_the_last_has_failed() -> None:
    assert recovered(crashes=2).status is Status.PENDING
    assert recovered(crashes=4, was_alone=False).status is Status.PENDING
    job = recovered(crashes=3)
    assert (job.status, job.finished_at) == (Status.FAILED, NOW)
    assert job.last_error == (
        "the process crashed during each of 3 attempts, in the last of which nothing else ran"
    )


def test_a_job_that_was_cut_off_is_pending_or_failed_if_it_may_run_only_once() -> None:
    job = lifecycle.cut_off(processing(), 1, "by a stop", NOW, at_most_once=False)
    assert (job.status, job.attempts, job.started_at) == (Status.PENDING, 1, None)
    job = lifecycle.cut_off(processing(), 1, "by a stop", NOW, at_most_once=True)
    assert (job.status, job.last_error) == (
        Status.FAILED,
        "the attempt was cut off by a stop (GOFER_ON_CRASH=fail)",
    )


def test_attempts_that_were_cut_off_use_no_retry() -> None:
    third = msgspec.structs.replace(processing(), attempts=3, max_retries=1)
    assert not lifecycle.has_retries_left(third, interruptions=1)
    assert lifecycle.has_retries_left(third, interruptions=2)


def test_a_job_that_may_run_only_once_has_failed_at_the_first_crash() -> None:
    job = recovered(crashes=1, at_most_once=True)
    assert (job.status, job.last_error) == (
        Status.FAILED,
        "the process crashed during the attempt (GOFER_ON_CRASH=fail)",
    )


def test_a_job_is_claimed_only_once() -> None:
    with pytest.raises(IllegalMove, match="is processing; to claim it, it must be pending"):
        lifecycle.claimed(processing(), NOW)


def test_an_outcome_of_an_older_attempt_is_refused() -> None:
    second = lifecycle.claimed(recovered(crashes=1), NOW)
    with pytest.raises(IllegalMove, match="in attempt 2, no longer in 1"):
        lifecycle.completed(second, 1, encode(None), NOW)


def test_a_finished_job_makes_no_move_at_all() -> None:
    done = lifecycle.completed(processing(), 1, encode(None), NOW)
    with pytest.raises(IllegalMove):
        lifecycle.failed(done, 1, "late", NOW)
    with pytest.raises(IllegalMove):
        lifecycle.released(done, 1)


@given(
    chances=st.lists(st.integers(0, 2**20 - 1), min_size=2, max_size=20),
    steps=st.lists(st.integers(-5, 5), min_size=2, max_size=20),
)
def test_ids_sort_as_jobs_were_accepted_even_if_the_clock_goes_back(
    chances: list[int], steps: list[int]
) -> None:
    now, ids = NOW, ["0"]
    for chance, step in zip(chances, steps, strict=False):
        now += timedelta(milliseconds=step)
        ids.append(lifecycle.new_id(now, chance, ids[-1]))
    assert ids[1:] == sorted(set(ids[1:]))
    assert {len(job_id) for job_id in ids[1:]} == {16}


def test_the_readme_draws_the_table_of_moves() -> None:
    lines = ["stateDiagram-v2", "    [*] --> pending: submit"]
    lines += [
        f"    {before} --> {after}: {move}" for move, (befores, after) in MOVES.items() for before in befores
    ]
    assert "```mermaid\n" + "\n".join(lines) + "\n```" in README.read_text()
