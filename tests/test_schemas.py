"""What `tests/schemas.py` looks at, for a moment."""

from tests.schemas import look

#: Its own time besides, in which it starts, is as much again on a busy machine.
BRIEF = ("--max-time", "10", "--max-examples", "3", "--seed", "1")


def test_schemathesis_finds_nothing() -> None:
    assert "passed" in look(*BRIEF)
