"""The command line: look for seeds that break a rule, show one, or see that each planted bug is found."""

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.simulation.events import SITUATIONS
from tests.simulation.faults import Kind
from tests.simulation.plants import PLANTS, Plant
from tests.simulation.runner import Case, Result, results
from tests.simulation.shrink import smaller

#: Cases that broke a rule once; they are run first.
FAILED_ONCE: Final = Path(__file__).with_name("seeds.txt")
#: Seeds of which one must find each planted bug.
FINDING: Final = 120


def main() -> int:
    """Do what the command line says; return 1 if a rule was broken, or a planted bug not found."""
    chosen = _parser().parse_args()
    if chosen.plants is not None:
        plants = [plant for plant in PLANTS if chosen.plants in plant.name]
        return sum([_is_blind(plant, chosen.shrink) for plant in plants]) > 0
    without = tuple(Kind(kind) for kind in chosen.without.split(",") if kind)
    if chosen.seed is not None:
        cases = [Case(chosen.seed, chosen.steps, without)]
    else:
        seeds = range(chosen.first, chosen.first + chosen.seeds)
        cases = [*failed_once(), *(Case(seed, chosen.steps, without) for seed in seeds)]
    return _run(cases, keeps_all=chosen.trace, shrinks=chosen.shrink)


def failed_once() -> list[Case]:
    """Return the cases of seeds.txt: a seed, its steps, what was left out, and after a # what it found."""
    cases = []
    for line in FAILED_ONCE.read_text().splitlines():
        if words := line.partition("#")[0].split():
            seed, steps, *without = words
            cases.append(Case(int(seed), int(steps), tuple(Kind(kind) for kind in without)))
    return cases


def _run(cases: Sequence[Case], *, keeps_all: bool, shrinks: bool) -> int:
    began = time.monotonic()
    reached: Counter[str] = Counter()
    failed, simulated, total = 0, 0.0, 0
    for result in results(cases, keeps_all=keeps_all):
        reached += result.reached
        simulated += result.seconds
        total = (total * 31 + result.hash) % 2**32
        if keeps_all:
            print(*result.events, sep="\n")
        if result.failure is not None:
            failed += 1
            _show(result)
            if shrinks:
                _show_smaller(smaller(result))
    seconds = time.monotonic() - began
    print(
        f"{len(cases)} seeds, {failed} of them broke a rule; {simulated:.0f} s simulated in {seconds:.1f} s",
        end="",
    )
    print(f" ({60 * len(cases) / seconds:.0f} seeds a minute); hash {total:08x}")
    if len(cases) > 1:
        never = [situation for situation in SITUATIONS if not reached[situation]]
        print("never reached:", ", ".join(never) or "nothing of what should be")
    return int(failed > 0)


def _show(result: Result) -> None:
    assert result.failure is not None
    print(*result.events, sep="\n")
    print(f"{result.case} broke a rule at commit {_commit()}: {result.failure.rule}: {result.failure.what}")
    print(f"with {', '.join(result.kinds)}; {result.switches} switches, {result.jobs} jobs", flush=True)


def _show_smaller(result: Result) -> None:
    print("the smallest that breaks the same rule:")
    _show(result)
    print(f"see all of it with: python -m tests.simulation {result.case} --trace", flush=True)


def _is_blind(plant: Plant, shrinks: bool) -> bool:
    """Tell whether no seed finds the bug."""
    began = time.monotonic()
    for result in results([Case(seed) for seed in range(FINDING)], plant.edits):
        if result.failure is not None:
            seconds = time.monotonic() - began
            print(
                f"{plant.name}: seed {result.case.seed}, {seconds:.1f} s: {result.failure.rule}", flush=True
            )
            if shrinks:
                _show(smaller(result, plant.edits))
            return False
    print(f"{plant.name}: NOT FOUND by {FINDING} seeds", flush=True)
    return True


def _commit() -> str:
    command = ("git", "describe", "--always", "--dirty")
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--steps", type=int, default=300, help="what the clients of a seed do, all together")
    parser.add_argument("--without", default="", help=f"kinds to leave out, of {','.join(Kind)}")
    parser.add_argument("--trace", action="store_true", help="show all that happens")
    parser.add_argument("--shrink", action="store_true", help="try to make each failure smaller")
    parser.add_argument(
        "--plants", nargs="?", const="", help="find the planted bugs with this in their names"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
