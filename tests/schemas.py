"""Schemathesis against a real service: whatever the document allows is accepted, and nothing else is.

It makes requests of the document, those that fit it and those that do not, alone and as chains along its
links, and holds each answer against it. All of its checks are on. One finding is expected, and written down
in `schemas.json`: a job that was deleted is still there, because DELETE cancels it.

    .venv/bin/python -m tests.schemas --seconds 300
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from tests.service import running

COMMAND: Final = Path(sys.executable).with_name("schemathesis")
EXPECTED: Final = Path(__file__).with_name("schemas.json")
CONFIG: Final = EXPECTED.with_suffix(".toml")
#: Nothing is refused for want of room, as that would end the tests of what comes after.
ROOMY: Final = {"GOFER_CAPACITY": 10_000_000, "GOFER_CAPACITY_DELAYED": 10_000_000}


class Mail(msgspec.Struct):
    """What a typed handler takes."""

    to: Annotated[str, Meta(min_length=3, max_length=100)]
    is_urgent: bool = False
    weights: dict[str, float] = {}


def send(payload: Mail) -> str:
    """Send a mail."""
    return payload.to


def guess(payload: Any) -> Any:
    """Return what it gets."""
    return payload


handlers: Final = {"mail": send, "guess": guess}


class Found(Exception):
    """What Schemathesis found, as it tells it."""


def look(*options: str, **settings: str) -> str:
    """Have it look at a service; return what it says at its end. Raises Found, with all that it said."""
    with (
        running(GOFER_SIMULATED_SECONDS=0, **ROOMY, **settings) as service,
        tempfile.TemporaryDirectory() as folder,
    ):
        command = [
            str(COMMAND),
            "--config-file",
            str(CONFIG),
            "run",
            f"{service.url}/openapi.json",
            "--checks",
            "all",
            "--no-color",
        ]
        command += ["--baseline", str(EXPECTED), "--continue-on-failure", *options]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode or '"level": "error"' in service.log:
            raise Found(f"{done.stdout}\n{done.stderr}\n{service.log}")
    return done.stdout


def main() -> None:
    """Look for as long as is wanted, at any jobs, and then at those of typed handlers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int)
    given = parser.parse_args()
    options = ["--max-time", str(given.seconds // 2), "--max-examples", "100"]
    if given.seed is not None:
        options += ["--seed", str(given.seed)]
    print(look(*options))  # noqa: T201
    print(look(*options, GOFER_HANDLERS="tests.schemas:handlers"))  # noqa: T201


if __name__ == "__main__":
    main()
