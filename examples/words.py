"""Counts the words of a text file."""

from collections.abc import Generator
from pathlib import Path

import msgspec

from actors import handler


class Text(msgspec.Struct):
    """The payload: which file to read."""

    path: str


@handler(max_retries=2, timeout=60)
def count_words(text: Text) -> Generator[float, None, dict[str, int]]:
    """Yield how much of the file is read, and return how many words it has."""
    lines = Path(text.path).read_text(encoding="utf-8").splitlines()
    words = 0
    for number, line in enumerate(lines):
        words += len(line.split())
        yield (number + 1) / len(lines)
    return {"lines": len(lines), "words": words}


handlers = {"count_words": count_words}
