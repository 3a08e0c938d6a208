"""Who is let in: by the Host that was asked for, by the token, and from which page.

The clients of a service on loopback are the machine's users, and so their browsers. A page from anywhere can
have its own name resolve to 127.0.0.1, and then read and post as if it came from here (DNS rebinding). So on
loopback only names that mean loopback are served. And a page of any origin can have a browser send a POST
that is not JSON, without asking first (CORS). So what changes something comes as JSON, or without a body and
not from another origin's page.
"""

import base64
import binascii
import hmac
from collections.abc import Collection
from ipaddress import ip_address
from typing import Final

import falcon
import falcon.asgi

from actors.settings import Settings
from api.request import Request

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
#: What is served without a token, so that whoever watches the service needs none.
OPEN_TO_ALL: Final = "/health"
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
#: What is refused, in words.
UNKNOWN_CLIENT: Final = (
    "send the service's token: Authorization: Bearer and GOFER_TOKEN, or Basic with it as the password"
)
NOT_JSON: Final = "send the body as JSON, with Content-Type: application/json"
FOREIGN_PAGE: Final = "a page of another origin may not do this"
#: Browsers ask for the token by the second; the user name is not looked at (RFC 6750, RFC 7617).
CHALLENGES: Final = ['Bearer realm="gofer"', 'Basic realm="gofer", charset="UTF-8"']


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can connect to an address, which may be a name."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Access:
    """Refuses requests in front of the app."""

    def __init__(self, token: str | None = None, hosts: Collection[str] | None = None) -> None:
        """Want this token, if any, and one of these names of hosts, in lower case; None stands for all."""
        self._token = None if token is None else token.encode()
        self._hosts = hosts

    @classmethod
    def of(cls, settings: Settings, host: str | None) -> "Access":
        """Return what the settings want where the service listens on this host; None is a socket's path."""
        is_local = host is not None and is_loopback(host)
        return cls(settings.token, LOOPBACK.union(settings.hosts()) if is_local else None)

    @property
    def wants_token(self) -> bool:
        """Whether requests need one."""
        return self._token is not None

    async def process_request(self, req: Request, _resp: falcon.asgi.Response) -> None:
        """Raise what the request is refused with."""
        if self._hosts is not None:
            self._check_host(req)
        if self._token is not None and req.path != OPEN_TO_ALL:
            self._check_token(req, self._token)
        if req.method not in SAFE:
            _check_origin(req)

    def _check_host(self, req: Request) -> None:
        given = req.get_header("Host")
        assert self._hosts is not None
        if given is not None and _name(given) not in self._hosts:
            raise falcon.HTTPError(
                falcon.HTTP_421,
                description=f"this service is not {given!r}; ask for localhost, or name that in"
                " GOFER_ALLOWED_HOSTS",
            )

    def _check_token(self, req: Request, token: bytes) -> None:
        scheme, _, credentials = (req.get_header("Authorization") or "").partition(" ")
        given = credentials.strip().encode("latin-1", "replace")
        if scheme.lower() == "basic":
            given = _password(given)
        elif scheme.lower() != "bearer":
            given = b""
        if not hmac.compare_digest(given, token):
            raise falcon.HTTPUnauthorized(description=UNKNOWN_CLIENT, challenges=CHALLENGES)


def _check_origin(req: Request) -> None:
    """Refuse what a page of another site can have a browser send without asking first."""
    if req.is_json:
        return
    if req.content_length or req.get_header("Transfer-Encoding"):
        raise falcon.HTTPUnsupportedMediaType(description=NOT_JSON)
    origin, host = req.get_header("Origin"), req.get_header("Host") or ""
    is_foreign = origin is not None and origin.partition("://")[2].lower() != host.lower()
    if is_foreign or req.get_header("Sec-Fetch-Site") == "cross-site":
        raise falcon.HTTPForbidden(description=FOREIGN_PAGE)


def _name(host: str) -> str:
    """Return a Host without its port (RFC 9110, section 7.2), in lower case."""
    name, colon, port = host.rpartition(":")
    return (name if colon and (not port or port.isdecimal()) else host).lower()


def _password(credentials: bytes) -> bytes:
    """Return the password of Basic credentials; none if they cannot be read."""
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
