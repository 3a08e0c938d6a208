"""Executors that fail, or whose futures say nothing of what runs; the long form is tests/executors.py."""

from pathlib import Path

import pytest

from tests.executors import FAULTS, Trial, faults_of, interrupted


@pytest.mark.parametrize("on_crash", ["retry", "fail"])
def test_what_runs_on_a_cluster_runs_as_often_as_it_has_attempts_whatever_interrupts_it(
    on_crash: str, tmp_path: Path
) -> None:
    once = on_crash == "fail"
    with Trial(tmp_path, on_crash) as trial:
        jobs = interrupted(trial, FAULTS, once=once)
        runs = trial.runs()
    assert list(faults_of(jobs, runs, once=once)) == []
    assert {runs[job.number] - job.attempts for job in jobs} == {0}
    assert {job.status for job in jobs} == {"failed" if once else "completed"}
