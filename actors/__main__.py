"""A Python prompt with a running system: `python -m actors`."""

import code
import logging.config
import os
import sys

import actors
from actors import log, messages

BANNER = """\
Gofer: `store` and `worker` are running actors. Try:
  job = store.ask(Submit("email", {"to": "user@example.com"}))
  store.ask(Get(job.id)).status
  store.ask(Await(job.id)).status"""


def main() -> None:
    """Start the actors, hand the prompt over, and stop them when it is left."""
    try:
        # Quieter than a service: a log line in the middle of typing helps nobody.
        settings = actors.from_environment({"GOFER_LOG": "WARNING", **os.environ})
        logging.config.dictConfig(log.config(settings.log))
        system = actors.start(settings)
    except actors.GoferError as error:
        sys.exit(f"gofer: {error}")
    names = {name: getattr(actors, name) for name in actors.__all__}
    refs = {"store": system.store, "worker": system.workers[0], "messages": messages}
    with system:
        code.interact(BANNER, local=names | refs, exitmsg="")


if __name__ == "__main__":
    main()
