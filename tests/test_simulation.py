"""The simulation in its short form: seeds that break no rule, each twice alike, and bugs that it finds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.loading import POINTED, STORE
from tests.simulation.plants import PLANTS, Plant
from tests.simulation.runner import Case, results

TOP = Path(__file__).parent.parent
#: Seeds of the short form; `python -m tests.simulation --seeds 1000` runs more.
SEEDS = 60
#: Seeds of which one must find each planted bug.
FINDING = 120


def simulate(*arguments: str) -> str:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    ended = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    return ended.stdout


def test_no_seed_breaks_a_rule_nor_any_that_once_did() -> None:
    assert " 0 of them broke a rule" in simulate("--seeds", str(SEEDS))


def test_a_seed_is_the_same_in_each_process_and_after_any_other() -> None:
    cases = [Case(seed, steps=80) for seed in range(12)]
    hashes = {result.case: result.hash for result in results(cases)}
    again = {result.case: result.hash for result in results(cases[::-1])}
    assert again == hashes
    assert len(set(hashes.values())) > 1


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_planted_bug_is_found(plant: Plant) -> None:
    cases = [Case(seed) for seed in range(FINDING)]
    assert any(result.failure for result in results(cases, plant.edits)), "the simulation has become blind"


def test_what_is_simulated_uses_threads_and_time_as_modules() -> None:
    simulated = [*(TOP / "actors/store").glob("*.py"), *(TOP / "actors/messaging").glob("*.py")]
    simulated += [TOP / "actors/work/worker.py", TOP / "actors/work/attempt.py", TOP / "actors/interrupts.py"]
    assert {*POINTED} <= {str(path.relative_to(TOP).with_suffix("")).replace("/", ".") for path in simulated}
    assert STORE == "actors.store."
    for path in simulated:
        text = path.read_text()
        found = re.findall(
            r"^\s*(?:from (?:threading|time|random|queue)\b.*|import (?:queue|asyncio)\b)", text, re.MULTILINE
        )
        allowed = ["import asyncio"] if path.name == "reply.py" else []  # It only wakes loops of others.
        assert found == allowed, path
        assert "datetime.now" not in text, path
