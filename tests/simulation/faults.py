"""What a seed turns on, and in which sizes: each has a random part, as a fault can hide another one."""

import random
from collections.abc import Collection
from enum import StrEnum
from typing import Final, NamedTuple

#: How likely each kind is in a seed, unless it is in RARE.
USUAL: Final = 0.6


class Kind(StrEnum):
    """What can happen to the service besides being asked to run jobs that succeed."""

    #: A life ends with a power cut, with a kill, or by being told to stop.
    POWER = "power"
    KILL = "kill"
    STOP = "stop"
    #: The same befalls it while it starts.
    CUT_START = "cut-start"
    #: The disk is full for a while; has an error; takes long to sync.
    FULL = "full"
    BROKEN = "broken"
    SLOW = "slow"
    #: Threads get no CPU for a while.
    PAUSE = "pause"
    #: The wall clock is set.
    CLOCK = "clock"
    #: Jobs are delayed; handlers fail; few finished jobs are kept.
    DELAY = "delay"
    FAIL = "fail"
    KEEP = "keep"
    #: Clients cancel, retry, wait, and give up waiting for an answer.
    CANCEL = "cancel"
    RETRY = "retry"
    AWAIT = "await"
    IMPATIENT = "impatient"
    #: Outcomes that were told already are told again.
    LATE = "late"
    #: Workers are pinged, and so have messages of their own.
    PING = "ping"
    #: Clients mostly look, and there is little to do.
    QUIET = "quiet"
    #: Some jobs bring the process down whenever they run.
    DEADLY = "deadly"


RARE: Final = {Kind.QUIET: 0.15, Kind.DEADLY: 0.25, Kind.KEEP: 0.3, Kind.BROKEN: 0.4}
ENDS: Final = (Kind.POWER, Kind.KILL, Kind.STOP)


class Sizes(NamedTuple):
    """How many jobs the backlog reads at once, when it reads again, and when it begins from the start."""

    page: int
    again: int
    most: int


class Plan(NamedTuple):
    """What a seed does."""

    seed: int
    #: What the clients do, all together.
    steps: int
    kinds: frozenset[Kind]
    workers: int
    capacity: int
    keep: int
    max_retries: int
    #: From which life on a job may run once only; None if never.
    once_from: int | None
    sizes: Sizes
    #: Pages of the WAL at which it is written to the database.
    checkpoint: int
    #: Messages per commit, at most.
    batch: int
    #: Rows that one statement writes, at most.
    rows: int
    #: Jobs in the channel for each Worker, at most.
    ahead: int
    #: How likely a switch is a pause.
    pausing: float

    def has(self, kind: Kind) -> bool:
        """Tell whether that happens."""
        return kind in self.kinds

    def is_once(self, life: int) -> bool:
        """Tell whether in that life what was cut off is not run again."""
        return self.once_from is not None and life >= self.once_from


def drawn(seed: int, steps: int, without: Collection[Kind] = ()) -> Plan:
    """Draw the plan of a seed; what is left out changes nothing else of it."""
    chance = random.Random(f"plan {seed}")
    kinds = {kind for kind in Kind if chance.random() < RARE.get(kind, USUAL)} - set(without)
    if not kinds & set(ENDS):
        kinds.add(next(kind for kind in reversed(ENDS) if kind not in without))
    keep, pausing = chance.choice((1, 2, 5, 20)), chance.choice((0.005, 0.03, 0.1))
    return Plan(
        seed=seed,
        steps=steps,
        kinds=frozenset(kinds),
        workers=chance.choice((1, 1, 2, 3)),
        capacity=chance.choice((5, 10_000, 10_000)),
        keep=keep if Kind.KEEP in kinds else 0,
        max_retries=chance.choice((0, 1, 3)),
        once_from=chance.choice((None,) * 9 + (1, 1, 2, 3)),
        sizes=chance.choice((Sizes(1000, 200, 20_000), Sizes(4, 2, 12), Sizes(2, 1, 6))),
        checkpoint=chance.choice((2, 10, 1000)),
        batch=chance.choice((2, 8, 256)),
        rows=chance.choice((1, 3, 256)),
        ahead=chance.choice((2, 8, 64)),
        pausing=pausing if Kind.PAUSE in kinds else 0.0,
    )
