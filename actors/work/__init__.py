"""Where jobs are run: the crew of Workers, and the executor that they may hand a handler to."""

from actors.work.crew import Crew
from actors.work.pool import Pool
from actors.work.worker import Worker

__all__ = ["Crew", "Pool", "Worker"]
