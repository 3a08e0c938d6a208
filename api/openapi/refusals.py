"""What any request may be refused with, for its address, its form or its sender alone.

Each comes with the `detail` of an example.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from api.access import FOREIGN_PAGE, NOT_JSON, OPEN_TO_ALL, SAFE, UNKNOWN_CLIENT

COMMON: Final[Mapping[HTTPStatus, str]] = {
    HTTPStatus.BAD_REQUEST: "there is no query parameter `colour` here; there is none at all",
    HTTPStatus.REQUEST_URI_TOO_LONG: "Request line is too large; with its method and address it may have 4094"
    " bytes",
    HTTPStatus.MISDIRECTED_REQUEST: "this service is not 'example.com'; ask for localhost, or name that in"
    " GOFER_ALLOWED_HOSTS",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "Too many headers; there may be 100 headers, of 8190 bytes"
    " each",
    HTTPStatus.NOT_IMPLEMENTED: "transfer coding 'br' is unknown here; send the body as it is, or chunked",
}
#: Of requests that are not safe: a browser may send them for a page of another origin.
OF_CHANGES: Final[Mapping[HTTPStatus, str]] = {
    HTTPStatus.FORBIDDEN: FOREIGN_PAGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: NOT_JSON,
}
#: Where a token is wanted.
GUARDED: Final[Mapping[HTTPStatus, str]] = {HTTPStatus.UNAUTHORIZED: UNKNOWN_CLIENT}
EVERY: Final[Mapping[HTTPStatus, str]] = {**COMMON, **OF_CHANGES, **GUARDED}


def refusals(method: str, path: str, *, is_guarded: bool) -> Mapping[HTTPStatus, str]:
    """Return those of one operation."""
    changes = {} if method in SAFE else OF_CHANGES
    guarded = GUARDED if is_guarded and path != OPEN_TO_ALL else {}
    return {**COMMON, **changes, **guarded}
