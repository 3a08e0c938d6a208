"""What `tests/schemas.py` looks at, for a moment."""

import pytest

from tests.schemas import look

#: Its own time besides, in which it starts, is about as much again on a busy machine.
BRIEF = ("--max-time", "8", "--max-examples", "3", "--seed", "1")


@pytest.mark.parametrize("settings", [{}, {"GOFER_HANDLERS": "tests.schemas:handlers"}])
def test_schemathesis_finds_nothing(settings: dict[str, str]) -> None:
    assert "passed" in look(*BRIEF, **settings)
