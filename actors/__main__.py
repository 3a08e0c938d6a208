"""A Python prompt with a running system: `python -m actors`; and `python -m actors backup TARGET`."""

import code
import logging.config
import os
import sys
from pathlib import Path

import actors
from actors import log, messages
from actors.store import backup
from actors.store.presence import IN_MEMORY

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


def back_up(target: str) -> None:
    """Copy the database that the settings name, whether a service uses it or not."""
    try:
        settings = actors.from_environment(os.environ)
        if settings.database == IN_MEMORY:
            sys.exit("gofer: GOFER_DATABASE is not set: jobs in memory cannot be copied")
        copied = backup.back_up(settings.database, Path(target))
    except actors.GoferError as error:
        sys.exit(f"gofer: {error}")
    sys.stdout.write(f"{copied.jobs} jobs, {copied.size} bytes: {target}\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["backup", target]:
            back_up(target)
        case _:
            sys.exit("gofer: `python -m actors` is a prompt; `python -m actors backup TARGET` makes a copy")
