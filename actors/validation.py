"""Validation: whether there is a handler for a job, and whether its payload fits that handler.

It runs on the submitter's side, never in the JobStore's thread: in Python in the asker's own thread, over
HTTP on the event loop. Only a model that runs code of its own, which could hold up every other request, is
validated in a small pool of threads, which the wiring stops.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pykka

from actors.errors import InvalidJob
from actors.handlers import Handlers
from actors.messages import Submit
from actors.messaging import Reply
from actors.requests import SubmitAll, SubmitOnce

#: Threads for models with code of their own; each starts when it is first needed.
THREADS: Final = 8


class Validation:
    """Checks jobs against the handlers."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers
        self._threads = ThreadPoolExecutor(THREADS, "validation")

    def check(self, message: Submit) -> None:
        """Raise InvalidJob if no handler can run the job."""
        self._handlers.find(message.type).check(message.payload)

    def check_all(self, message: SubmitAll) -> None:
        """Raise InvalidJob if that holds for any of these jobs."""
        for place, job in enumerate(message.jobs):
            try:
                self.check(job)
            except InvalidJob as error:
                raise error.at(place) from None

    async def check_aside(self, message: Submit) -> None:
        """Do the same without holding up the event loop."""
        handler = self._handlers.find(message.type)
        if handler.runs_code:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, handler.check, message.payload)
        elif handler.model is not None:
            handler.check(message.payload)

    async def check_all_aside(self, message: SubmitAll) -> None:
        """Do the same for all of these jobs; the error says which it is about."""
        for place, job in enumerate(message.jobs):
            try:
                await self.check_aside(job)
            except InvalidJob as error:
                raise error.at(place) from None

    def stop(self) -> None:
        """Begin no further validation; what runs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class CheckingRef(pykka.ActorRef[Any]):
    """The JobStore's ref for Python: a Submit that cannot be run is refused before it is sent."""

    def __init__(self, ref: pykka.ActorRef[Any], validation: Validation) -> None:
        vars(self).update(vars(ref))
        self._validation = validation

    def tell(self, message: Any) -> None:
        """Send a message. Raises InvalidJob."""
        self._check(message)
        super().tell(message)

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        """Send a message and return its answer, or a Reply if `block` is false. Raises InvalidJob."""
        self._check(message)
        reply = super().ask(message, block=False)
        if not block:
            return reply
        try:
            return reply.get(timeout=timeout)
        except pykka.Timeout:  # This reply cannot be asked again.
            assert isinstance(reply, Reply)
            raise reply.give_up(f"no answer within {timeout} seconds") from None

    def _check(self, message: Any) -> None:
        if isinstance(message, SubmitOnce):
            message = message.submit
        if isinstance(message, Submit):
            self._validation.check(message)
        elif isinstance(message, SubmitAll):
            self._validation.check_all(message)
