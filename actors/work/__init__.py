"""Where jobs are run: the Worker, and the executor that it may hand a handler to."""

from actors.work.pool import Pool
from actors.work.worker import Worker

__all__ = ["Pool", "Worker"]
