"""A hand-over: how the process that serves lets another one take over its database.

The other one has loaded its handlers, has said so, and waits for the lock of the database.

1. No further job starts, but all requests are answered, and submits stored: the next process will run them.
   So it goes on until the running jobs have ended, or their grace has. Each answer is its connection's last.
   Clients that wait for a job go on waiting: if it runs, it finishes here.
2. From here it takes a moment. Connections wait in the listening socket's queue, requests on older ones in
   `relay.py`; clients that wait for a job get it as it is, and may wait for it again there; the actors stop,
   with them the lock is let go of, and the next process opens the database.
3. When that one answers, this process ends with its last connection, but soon. A client that was accepted in
   the last moment, and is slow to send its request, still has it passed on.

It can be cancelled, for a stop, as long as it `is_reversible`: in step 1. A kill leaves what any crash
leaves: committed jobs, and running ones that the next process recovers. A job that has outlasted the grace
still runs after step 2; then this process ends without waiting for anything, before the next one can run that
job again. As it can pass nothing on then, it first waits for the requests of those that were accepted.
"""

import asyncio
import os
from typing import Final

from actors import System
from actors.messages import Drain
from api import leaving
from api.relay import Relay
from api.server import Worker

#: Seconds that requests which were begun may still take while others wait, and for which this process waits
#: for the next one.
LAST_ANSWERS: Final = 0.5
SUCCESSION: Final = 2.0
#: Seconds in which clients that were accepted may still ask, before a process ends that passes nothing on.
LAST_REQUESTS: Final = 0.6
#: Seconds between two looks whether there are connections.
LOOK: Final = 0.02
#: Seconds for which connections may still be open when the next process answers already.
LINGER: Final = 2.0


class HandOver:
    """The hand-over of one process. It starts in the event loop."""

    def __init__(self, worker: Worker, system: System, relay: Relay, grace: float) -> None:
        self._worker = worker
        self._system = system
        self._relay = relay
        self._grace = grace
        self.is_reversible = True
        #: Whether the actors have been stopped.
        self.is_done = False
        self._task = worker.loop.create_task(self._run())

    def cancel(self) -> None:
        """Leave all as it is: no job starts, and those that run may do so for the rest of the grace."""
        self._task.cancel()

    async def _run(self) -> None:
        self._system.drain(self._grace, admits=True)
        all_have_ended = await asyncio.to_thread(self._system.stop_workers)
        self.is_reversible = False
        leaving.accept_no_more(self._worker)
        self._system.store.tell(Drain())  # No job will finish here any longer, so no client waits for one.
        try:
            if not all_have_ended:
                await self._last_requests()
            await self._relay.hand_over(LAST_ANSWERS)
            await asyncio.to_thread(self._system.stop)
            self.is_done = True
            if not all_have_ended:
                os._exit(0)
            await self._relay.finish(SUCCESSION)
        finally:
            leaving.end_serving(self._worker)
            self._worker.loop.call_later(LINGER, self._worker.handle_quit_signal)

    async def _last_requests(self) -> None:
        """Wait until each connection has ended, with its answer; not for those that stay silent."""
        end = self._worker.loop.time() + LAST_REQUESTS
        while self._worker.nr_conns and self._worker.loop.time() < end:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(LOOK)
