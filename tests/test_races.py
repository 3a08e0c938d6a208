"""Cancels race with Workers that take jobs out of the channel: one step decides, and its answer tells."""

import random
from typing import Any

from actors import Cancel, Settings, Submit, start
from actors.errors import IllegalMove
from actors.lifecycle import Job, Status
from actors.messages import Await

TRIES = 10_000
#: Jobs that are submitted at once, of which some lie in the channel when the cancels come.
TOGETHER = 50


def answer(reply: Any) -> Job | None:
    """Return the cancelled job; None if it had ended already."""
    try:
        job: Job = reply.get()
    except IllegalMove:
        return None
    return job


def test_a_job_that_a_cancel_took_never_ran_and_every_other_did() -> None:
    ran = set[int]()
    chance = random.Random(7)
    settings = Settings(workers=2, keep_finished=0)
    seen = {"took": 0, "was late": 0}
    with start(settings, {"note": ran.add}) as system:
        store = system.store
        for first in range(0, TRIES, TOGETHER):
            jobs = [store.ask(Submit("note", first + n), block=False) for n in range(TOGETHER)]
            order = chance.sample(range(TOGETHER), TOGETHER)
            cancels = {n: store.ask(Cancel(jobs[n].get().id), block=False) for n in order}
            for n, reply in cancels.items():
                cancelled = answer(reply)
                if cancelled is not None and cancelled.status is Status.CANCELLED:
                    seen["took"] += 1
                    assert first + n not in ran
                else:
                    seen["was late"] += 1
                    store.ask(Await(jobs[n].get().id))
                    assert first + n in ran
        taken = seen["took"]
    assert len(ran) == TRIES - taken
    assert min(seen.values()) > 0, seen
