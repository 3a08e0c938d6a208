"""A few kills in a first start and in migrations; `python -m tests.kills` kills at every storage call."""

import pytest

from tests.kills import STATES, Kill, check
from tests.storage import needs_strace

pytestmark = needs_strace


@pytest.mark.parametrize(
    "kill",
    [
        Kill("new", "openat", 4),
        Kill("new", "pwrite64", 3),
        Kill("new", "fdatasync", 2),
        Kill("new", "unlink", 1),
        Kill("crashed", "pwrite64", 1),
        *(Kill(state, "pwrite64", 4) for state in STATES if state.startswith("version")),
        *(Kill(state, "fdatasync", 1) for state in STATES if state.startswith("young")),
    ],
    ids=str,
)
def test_what_a_kill_leaves_opens_with_every_job_that_was_acknowledged(kill: Kill) -> None:
    assert check(kill)
