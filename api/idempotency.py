"""The Idempotency-Key of a request (draft-ietf-httpapi-idempotency-key-header)."""

import re
from typing import Final

import falcon

from actors.requests import KEY
from api.request import Request

#: A string of structured fields (RFC 9651), and what may stand behind a backslash in it.
QUOTED: Final = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
ESCAPED: Final = re.compile(r'\\(["\\])')


def key_of(req: Request) -> str | None:
    """Return the key, None if there is none; quoted and bare, it is the same. Raises HTTPBadRequest."""
    given = req.get_header("Idempotency-Key")
    if given is None:
        return None
    is_one = sum(name == b"idempotency-key" for name, _ in req.scope["headers"]) == 1
    if is_one and not given.startswith('"') and re.match(KEY, given):
        return given
    quoted = QUOTED.fullmatch(given)
    key = ESCAPED.sub(r"\1", quoted[1]) if quoted and is_one else ""
    if not re.match(KEY, key):
        raise falcon.HTTPBadRequest(
            description="Idempotency-Key must be one key of 1 to 255 visible ASCII characters, as it is or in"
            ' double quotes, such as "8e03978e-40d5-43e8-bc93-6894a57f9324"'
        )
    return key
