"""Asking an actor from a responder: with a time limit, so that no request ever hangs."""

import asyncio
from typing import Any, Final

import pykka

from actors.messages import Message

#: Seconds that an actor has to answer.
ANSWER_LIMIT: Final = 5.0


async def ask(actor: pykka.ActorRef[Any], message: Message) -> Any:
    """Send the message and return the answer, without blocking the event loop.

    Raises what the actor raises, ActorDeadError if it has stopped, or Timeout.
    """
    try:
        async with asyncio.timeout(ANSWER_LIMIT):
            return await actor.ask(message, block=False)
    except TimeoutError:
        name = actor.actor_class.__name__
        raise pykka.Timeout(f"the {name} gave no answer in {ANSWER_LIMIT:g} seconds") from None
