"""The power is cut while clients submit and watch jobs; `python -m tests.power` does it for longer."""

import copy
import random
import sqlite3
from pathlib import Path

import pytest

from tests import power
from tests.power import NAME, Story
from tests.storage import needs_strace, report

pytestmark = needs_strace

JOBS = 80
IMAGES = 200


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A run long enough for the write-ahead log to be begun anew."""
    folder: Path = tmp_path_factory.mktemp("run")
    recorded = power.record(folder, JOBS)
    (folder / "trace").unlink()
    report(power.told(recorded))
    return recorded


def test_no_answer_leaves_before_the_fsync_of_what_it_says_has_returned(story: Story) -> None:
    assert power.check_answers(story) > 10


def test_a_power_cut_at_any_moment_loses_nothing_that_was_shown(story: Story) -> None:
    power.check_cuts(story, IMAGES, random.randrange(10**6))


def test_an_fsync_of_the_write_ahead_log_that_is_missing_would_be_noticed(story: Story) -> None:
    broken = copy.deepcopy(story)
    files(broken, f"{NAME}-wal")[0].forget_syncs(after=10)
    with pytest.raises(AssertionError):
        power.check_answers(broken)


def test_an_fsync_of_the_database_that_is_missing_at_a_checkpoint_would_be_noticed(story: Story) -> None:
    broken = copy.deepcopy(story)
    (database,) = files(broken, NAME)
    database.forget_syncs(after=database.syncs_before(story.syncs[len(story.syncs) // 10]))
    with pytest.raises((AssertionError, sqlite3.DatabaseError)):
        power.check_cuts(broken, IMAGES, seed=1)


def files(story: Story, name: str) -> list[power.File]:
    """Return the files that had this name, one after the other."""
    return [entry.file for entry in story.entries if entry.name == name and entry.file is not None]
