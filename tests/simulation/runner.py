"""Running seeds: a few at a time in a process of their own, each of which loads the real code anew.

A killed life leaves its greenlets and its database connection behind, as nothing of them may run any more;
with the process they are gone.
"""

import asyncio
import concurrent.futures.thread
import os
import pickle
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import IO, Final, NamedTuple

import greenlet
import msgspec
import structlog

from tests.simulation import loading
from tests.simulation.events import Failure
from tests.simulation.faults import Kind

#: Imported before a fork, so that no process has to do it again.
SHARED: Final = (asyncio, concurrent.futures.thread, greenlet, msgspec, sqlite3, structlog)
#: Seeds for each process.
TOGETHER: Final = 25


class Case(NamedTuple):
    """A seed, how much its clients do, and what is left out."""

    seed: int
    steps: int = 300
    without: tuple[Kind, ...] = ()

    def __str__(self) -> str:
        without = f" --without {','.join(self.without)}" if self.without else ""
        return f"--seed {self.seed} --steps {self.steps}{without}"


class Result(NamedTuple):
    """How a case went."""

    case: Case
    kinds: tuple[Kind, ...]
    failure: Failure | None
    hash: int
    events: list[str]
    reached: Counter[str]
    seconds: float
    switches: int
    jobs: int


class Died(Exception):
    """A process ended without a result."""


def results(
    cases: Sequence[Case], edits: Sequence[loading.Edit] = (), *, keeps_all: bool = False
) -> Iterator[Result]:
    """Yield how each case goes, in their order; with edits, of the code as they change it."""
    for first in range(0, len(cases), TOGETHER):
        some = cases[first : first + TOGETHER]
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _run(some, edits, os.fdopen(writer, "wb"), keeps_all=keeps_all)
        os.close(writer)
        try:
            with os.fdopen(reader, "rb") as pipe:
                yield from _read(pipe, some)
        finally:
            os.waitpid(child, 0)


def _read(pipe: IO[bytes], cases: Sequence[Case]) -> Iterator[Result]:
    for case in cases:
        try:
            result = pickle.load(pipe)
        except EOFError:
            raise Died(f"the process ended while it ran {case}") from None
        if isinstance(result, Exception):
            raise result
        yield result


def _run(cases: Sequence[Case], edits: Sequence[loading.Edit], pipe: IO[bytes], *, keeps_all: bool) -> None:
    """Run the cases in this process, and end it without freeing what is left of them."""
    try:
        machine = loading.load(edits)
        from tests.simulation.lives import live  # noqa: PLC0415 - only now, as it imports the real code

        for case in cases:
            outcome = live(machine, case.seed, case.steps, case.without, keeps_all=keeps_all)
            events = outcome.events
            result = Result(
                case,
                tuple(kind for kind in Kind if outcome.plan.has(kind)),
                events.failure,
                events.hash,
                list(events.last) if events.failure or keeps_all else [],
                events.reached,
                outcome.seconds,
                outcome.switches,
                outcome.jobs,
            )
            pickle.dump(result, pipe)
            pipe.flush()
    except Exception as error:  # noqa: BLE001 - it is raised in the process that waits
        pickle.dump(RuntimeError(repr(error)), pipe)
        pipe.flush()
    except BrokenPipeError:
        pass
    finally:
        os._exit(0)
