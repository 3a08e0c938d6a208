"""The simulation in its short form: seeds that break no rule, the same each time, and bugs that it finds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.loading import POINTED, STORE
from tests.simulation.plants import PLANTS

TOP = Path(__file__).parent.parent
#: Seeds of the short form; `python -m tests.simulation --seeds 1000` runs more.
SEEDS = 40
#: Of the planted bugs some that are found soon; `python -m tests.simulation --plants` looks for each.
SOON = (
    "an answer runs ahead of the commit",
    "nothing is rolled back",
    "crashes are forgotten at the beginning",
    "a job has waited half of its delay",
    "a reply is looked at without its lock",
    "a start reads no backlog",
)
#: What the simulation cannot replace.
WRONG = r"^ *(?:from (?:threading|time|random|os|queue) .*|import (?:queue|asyncio)|.*datetime\.now.*)$"
#: Prints the hash of each of these seeds.
HASHES = """
from tests.simulation.runner import Case, results
for result in results([Case(seed, steps=80) for seed in ({seeds})]):
    print(result.case.seed, result.hash)
"""


def run(*arguments: str) -> str:
    """Run it in a process of its own, as this one has loaded the real code already."""
    command = [sys.executable, *arguments]
    ended = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    return ended.stdout


def test_no_seed_breaks_a_rule_nor_any_that_once_did() -> None:
    assert " 0 of them broke a rule" in run("-m", "tests.simulation", "--seeds", str(SEEDS))


def test_a_seed_is_the_same_in_each_process_and_after_any_other() -> None:
    once = run("-c", HASHES.format(seeds="*range(12),")).splitlines()
    again = run("-c", HASHES.format(seeds="*range(11, -1, -1),")).splitlines()
    assert again[::-1] == once
    assert len({line.split()[1] for line in once}) == 12


@pytest.mark.parametrize("name", SOON)
def test_a_planted_bug_is_found(name: str) -> None:
    assert f"{name}: seed " in run("-m", "tests.simulation", "--plants", name)


def test_each_planted_bug_fits_the_code() -> None:
    for plant in PLANTS:
        for edit in plant.edits:
            path = TOP / f"{edit.module.replace('.', '/')}.py"
            assert path.read_text().count(edit.old) == 1, f"{plant.name}: {edit.old!r} in {edit.module}"


def test_what_is_simulated_uses_threads_and_time_as_modules() -> None:
    simulated = [*(TOP / "actors/store").glob("*.py"), *(TOP / "actors/messaging").glob("*.py")]
    simulated += [TOP / "actors/work/worker.py", TOP / "actors/work/attempt.py", TOP / "actors/interrupts.py"]
    assert {*POINTED} <= {".".join(path.relative_to(TOP).with_suffix("").parts) for path in simulated}
    assert STORE == "actors.store."
    for path in simulated:
        text = path.read_text()
        found = re.findall(WRONG, text, re.MULTILINE)
        allowed = ["import asyncio"] if path.name == "reply.py" else []  # It only wakes loops of others.
        assert found == allowed, path
