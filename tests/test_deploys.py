"""No deploy and no poison job fails an innocent one; the long form is tests/deploys.py."""

from pathlib import Path

import pytest

from tests.deploys import deploys, poison


@pytest.mark.parametrize("kill_after", [None, 0.3], ids=["SIGTERM", "SIGKILL"])
def test_deploys_over_a_job_that_outlasts_the_grace_fail_nothing(
    kill_after: float | None, tmp_path: Path
) -> None:
    assert list(deploys(tmp_path, 4 if kill_after else 1, 0, kill_after)) == []


def test_a_deploy_fails_a_job_that_may_run_only_once(tmp_path: Path) -> None:
    assert list(deploys(tmp_path, 1, 0, 0.3, "fail")) == []


def test_a_job_that_aborts_the_process_is_failed_alone_and_soon(tmp_path: Path) -> None:
    assert list(poison(tmp_path, length=0.6)) == []
