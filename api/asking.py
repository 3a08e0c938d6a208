"""Asking an actor from a responder: with a time limit, so that no request ever hangs."""

import contextlib
from typing import Any, Final

import pykka

from actors.lifecycle import Job
from actors.messages import Await, Get, Message
from actors.messaging import OutcomeUnknown, Reply, Unanswered
from actors.store import JobStore

#: Seconds that an actor has to answer.
ANSWER_LIMIT: Final = 5.0


async def ask(actor: pykka.ActorRef[Any], message: Message, limit: float | None = None) -> Any:
    """Send the message and return the answer, without blocking the event loop.

    An actor has `limit` seconds for it, or ANSWER_LIMIT.

    Raises what the actor raises, ActorDeadError if it has stopped, or Unanswered: then the message will not
    be handled, or (OutcomeUnknown) it was begun, and what it does may still happen.
    """
    name = actor.actor_class.__name__
    try:
        reply = actor.ask(message, block=False)
        assert isinstance(reply, Reply)
        return await reply.within(ANSWER_LIMIT if limit is None else limit)
    except pykka.ActorDeadError:
        raise pykka.ActorDeadError(f"the {name} has stopped, and the service with it") from None
    except OutcomeUnknown:
        raise OutcomeUnknown(f"{late(name)}; whether this was stored is unknown") from None
    except Unanswered:
        raise Unanswered(f"{late(name)}; nothing was stored") from None


async def finished(store: pykka.ActorRef[JobStore], job_id: str, seconds: float) -> Job:
    """Return the job once it is finished, or as it is after so many seconds, or when the service stops.

    Raises as `ask` does.
    """
    job: Job
    if seconds:
        with contextlib.suppress(Unanswered):
            job = await ask(store, Await(job_id), seconds)
            return job
    job = await ask(store, Get(job_id))
    return job


def late(name: str) -> str:
    """Say that the actor took too long."""
    return f"the {name} did not answer within {ANSWER_LIMIT:g} seconds"
