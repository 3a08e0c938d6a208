"""What was done to the jobs since the last commit."""

import msgspec

from actors.lifecycle import Job


class Changes(msgspec.Struct):
    """What needs action after the commit."""

    #: Those that have become pending, in this order, and those that have finished.
    runnable: list[Job] = []
    finished: list[Job] = []
    #: The running jobs that are to be interrupted.
    cancelled: set[str] = set()
    #: Bytes of payloads and results that were written, about.
    bytes: int = 0
    #: Whether the commit had anything to write.
    wrote: bool = False
