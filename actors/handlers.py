"""What runs a job: a function from payload to result, or a generator that yields its progress."""

import math
import time
from collections.abc import Callable, Generator
from typing import Any

#: Takes the payload and returns the result; as a generator it yields progress, from 0 to 1, and each
#: yield is a point where the service may stop.
Handler = Callable[[dict[str, Any]], Any]

#: Seconds between two yields of a simulated job, and so how soon it notices a stop.
STEP = 0.1


def simulated(seconds: float) -> Handler:
    """Return a handler that takes so many seconds and does nothing."""

    def handler(_payload: dict[str, Any]) -> Generator[float, None, None]:
        steps = math.ceil(seconds / STEP)
        for step in range(steps):
            yield step / steps
            time.sleep(seconds / steps)

    return handler
