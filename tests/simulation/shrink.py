"""Making a failure smaller: the same rule broken with less trouble, fewer steps, or a neighbour's seed."""

from collections.abc import Iterable, Sequence
from typing import Final

from tests.simulation.faults import ENDS
from tests.simulation.loading import Edit
from tests.simulation.runner import Case, Result, results

STEPS: Final = (150, 80, 40, 25, 15, 10, 6, 4, 2)
#: Seeds that are tried with fewer steps, from the one that failed.
NEIGHBOURS: Final = 12


def smaller(failed: Result, edits: Sequence[Edit] = ()) -> Result:
    """Return the smallest case that breaks the same rule, as far as it is easily found."""
    for kind in failed.kinds:
        if not set(ENDS) <= {*failed.case.without, kind}:  # Some end there must be.
            case = failed.case._replace(without=(*failed.case.without, kind))
            failed = _first(failed, [case], edits) or failed
    for steps in STEPS:
        seeds = range(failed.case.seed, failed.case.seed + NEIGHBOURS)
        cases = [failed.case._replace(seed=seed, steps=steps) for seed in seeds]
        found = _first(failed, cases, edits)
        if found is None:
            break
        failed = found
    return failed


def _first(failed: Result, cases: Iterable[Case], edits: Sequence[Edit]) -> Result | None:
    assert failed.failure is not None
    for result in results(list(cases), edits):
        if result.failure is not None and result.failure.rule == failed.failure.rule:
            return result
    return None
