"""Gofer over HTTP: parses, sends messages, renders. Holds no rule about jobs.

An app belongs to actors, which live in one process of gunicorn's; `gunicorn.conf.py` looks after both. To a
server that has not read that file, which would serve something else elsewhere, this module says how to start.
"""

import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from api.app import create_app

__all__ = ["create_app"]

SERVERS: Final = ("gunicorn.app.wsgiapp", "uvicorn", "hypercorn", "daphne", "granian")
#: What they are told to ask for.
APPS: Final = ("app", "application", "create_app")
#: With this code of a worker's gunicorn ends; after others it would try again, forever.
APP_LOAD_ERROR: Final = 4


def __getattr__(name: str) -> Any:
    is_set_up = "api.serving" in sys.modules  # By gunicorn.conf.py.
    if name in APPS and not is_set_up and any(server in sys.modules for server in SERVERS):
        sys.stderr.write(
            f"gofer: api:{name} cannot be served by itself; start Gofer, in the folder of its"
            " gunicorn.conf.py, with: gunicorn -c gunicorn.conf.py\n"
        )
        sys.exit(APP_LOAD_ERROR)
    if name == "create_app":
        from api.app import create_app  # noqa: PLC0415 - or `api.app` would be there, and be taken for an app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
