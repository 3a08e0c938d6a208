"""Opaque JSON: a payload or a result, kept as the bytes that came (RFC 8259), whatever value they spell.

Every msgspec.Raw in Gofer was made or checked here: it is UTF-8, well-formed and at most DEPTH levels deep.
So the JobStore can keep it and HTTP can embed it without looking into it. What Python cannot hold (1e400,
integers beyond its limit of digits) is an error only for code that decodes it.
"""

import math
import re
from array import array
from codecs import BOM_UTF8
from itertools import accumulate
from typing import Any, Final

import msgspec
from msgspec import Raw

NULL: Final = Raw(b"null")
SYNTAX: Final = msgspec.json.Decoder(Raw)
ANY: Final = msgspec.json.Decoder[Any]()
#: Levels of arrays and objects, at most.
DEPTH: Final = 200
TOO_DEEP: Final = f"it is nested more than {DEPTH} levels deep"
STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
#: Each bracket as a signed step up or down.
STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[{]}"))
#: The escape of one half of a character that UTF-16 writes as two, without the other half.
LONE_SURROGATE: Final = re.compile(
    rb"(?i)(?<!\\)(?:\\\\)*(?:\\ud[89ab]..(?!\\ud[c-f]..)|(?<!\\ud[89ab]..)\\ud[c-f]..)"
)
#: What msgspec says, and what is said instead.
WORDS: Final = {
    "Object contains unknown field": "there is no field",
    "Object missing required field": "it lacks the field",
}


def encode(value: object) -> Raw:
    """Return a value of Python's as JSON. Raises ValueError, saying why, for one that is not JSON."""
    if value is None:
        return NULL
    if type(value) is Raw:
        return checked(value)
    try:
        data = msgspec.json.encode(value)
    except UnicodeEncodeError:
        raise ValueError("it holds a lone surrogate, which is not a character") from None
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except (TypeError, ValueError) as error:
        raise ValueError(str(error)) from None
    # A float that is not a number is encoded as null.
    if b"null" in data and not _is_finite(msgspec.to_builtins(value)):
        raise ValueError("it holds NaN or Infinity, which JSON has no number for")
    return checked(Raw(data))


def checked(raw: Raw) -> Raw:
    """Return the JSON if it may be kept. Raises ValueError, saying why not."""
    try:
        SYNTAX.decode(raw)
    except msgspec.DecodeError as error:
        raise ValueError(explained(bytes(raw), error)) from None
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    return parsed(raw)


def parsed(raw: Raw) -> Raw:
    """Return JSON that msgspec has parsed already, if it may be kept. Raises ValueError, saying why not."""
    data = bytes(raw)
    try:
        if not data.isascii():
            data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error.reason} (byte {error.start})") from None
    if _depth(data) > DEPTH:
        raise ValueError(TOO_DEEP)
    return raw


def decode(raw: Raw, decoder: msgspec.json.Decoder[Any] = ANY) -> Any:
    """Return the JSON as a value of Python's, of the decoder's type.

    Raises msgspec.ValidationError if it does not fit, even if only because it holds a number that Python
    cannot hold.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        if "out of range" in str(error):
            raise msgspec.ValidationError(f"it holds a number too large for Python: {error}") from None
        raise


def explained(data: bytes, error: msgspec.DecodeError) -> str:
    """Return what is wrong with the JSON; msgspec calls a lone surrogate truncated input."""
    if data.startswith(BOM_UTF8):
        return "it begins with a byte order mark (BOM), which JSON does not have; leave it out"
    if LONE_SURROGATE.search(data):
        return "it holds a lone surrogate, which is not a character"
    return in_words(error)


def in_words(error: msgspec.DecodeError) -> str:
    """Return what msgspec says, which calls an object and its fields by their names in a schema."""
    said = str(error)
    for theirs, ours in WORDS.items():
        said = said.replace(theirs, ours, 1)
    return said


def _depth(data: bytes) -> int:
    if data.count(b"[") + data.count(b"{") <= DEPTH:
        return 0  # Too few to be too deep.
    steps = STRING.sub(b"", data).translate(STEPS, NO_BRACKETS)
    return max(accumulate(array("b", steps)), default=0)


def _is_finite(value: Any) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case dict():
            return all(_is_finite(part) for pair in value.items() for part in pair)
        case list() | tuple() | set() | frozenset():
            return all(_is_finite(part) for part in value)
        case _:
            return True
