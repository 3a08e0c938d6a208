"""A Python prompt with a running system: `python -m actors`; and `python -m actors backup TARGET`."""

import code
import contextlib
import logging.config
import os
import sys
from pathlib import Path
from typing import Any

import pykka

import actors
from actors import GoferError, System, log, messages
from actors.settings import IN_MEMORY
from actors.store import backup

BANNER = """\
Gofer: `system` runs; `store` and `worker` are running actors of it. Try:
  job = store.ask(Submit("email", {"to": "user@example.com"}))
  store.ask(Get(job.id)).status
  store.ask(Await(job.id)).status"""


class Prompt(code.InteractiveConsole):
    """Shows a refusal as one line: whoever typed the message needs no traceback of the actors."""

    def showtraceback(self) -> None:
        """Show the error being handled."""
        error = sys.exc_info()[1]
        if isinstance(error, GoferError | pykka.Timeout | pykka.ActorDeadError):
            self.write(f"{type(error).__name__}: {error}\n")
        else:
            super().showtraceback()


def names(system: System) -> dict[str, Any]:
    """Return what can be typed: the system, its actors, every message, and what Gofer exports."""
    kinds = {name: kind for name, kind in vars(messages).items() if _is_message(kind)}
    exported = {name: getattr(actors, name) for name in actors.__all__}
    running = {"system": system, "store": system.store, "worker": system.workers[0]}
    return {**exported, **kinds, **running, "messages": messages}


def _is_message(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, messages.Message)


def main() -> None:
    """Start the actors, hand the prompt over, and stop them when it is left."""
    log.have_stderr()
    try:
        # Quieter than a service: a log line in the middle of typing helps nobody.
        settings = actors.from_environment({"GOFER_LOG": "WARNING", **os.environ})
        logging.config.dictConfig(log.config(settings.log))
        system = actors.start(settings)
    except GoferError as error:
        sys.exit(f"gofer: {error}")
    with system:
        typed = names(system)
        complete(typed)
        Prompt(typed).interact(BANNER, exitmsg="")


def complete(typed: dict[str, Any]) -> None:
    """Complete at Tab what is typed, where Python has readline."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: PLC0415 - not every Python has it
        import rlcompleter  # noqa: PLC0415

        readline.set_completer(rlcompleter.Completer(typed).complete)
        readline.parse_and_bind("tab: complete")


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
