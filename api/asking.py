"""Asking an actor from a responder: with a time limit, so that no request ever hangs."""

from typing import Any, Final

import pykka

from actors.messages import Message
from actors.messaging import Reply

#: Seconds that an actor has to answer.
ANSWER_LIMIT: Final = 5.0


async def ask(actor: pykka.ActorRef[Any], message: Message) -> Any:
    """Send the message and return the answer, without blocking the event loop.

    Raises what the actor raises, ActorDeadError if it has stopped, or Timeout.
    """
    name = actor.actor_class.__name__
    try:
        reply = actor.ask(message, block=False)
        assert isinstance(reply, Reply)
        return await reply.within(ANSWER_LIMIT)
    except pykka.ActorDeadError:
        raise pykka.ActorDeadError(f"the {name} has stopped, and the service with it") from None
    except pykka.Timeout:
        raise pykka.Timeout(f"the {name} did not answer within {ANSWER_LIMIT:g} seconds") from None
