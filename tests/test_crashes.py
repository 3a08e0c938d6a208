"""A crash loses nothing; the long form is tests/crashes.py."""

import random
from pathlib import Path

from tests.crashes import RECOVERY, crashed


def test_kills_under_load_lose_no_job_and_run_none_twice_without_need(tmp_path: Path) -> None:
    report = crashed(tmp_path, 6, random.Random(5), life=0.6)
    assert report.faults == []
    assert report.acknowledged > 50
    assert report.recoveries
    assert report.recoveries[len(report.recoveries) // 2] < RECOVERY
