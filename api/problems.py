"""Every error as application/problem+json (RFC 9457), with a detail that says what to change."""

from http import HTTPStatus
from typing import Any, Final

import falcon
import falcon.asgi
import msgspec
import pykka

from actors.errors import (
    CapacityReached,
    Draining,
    IllegalMove,
    InvalidJob,
    InvalidKey,
    JobDeleted,
    JobNotFound,
    KeyReused,
    OutcomeInDoubt,
    StorageFailed,
)
from actors.messaging import OutcomeUnknown, Unanswered
from api.request import Request

#: What the actors refuse, as HTTP: the status, and after how many seconds to try again.
ANSWERS: Final[dict[type[Exception], tuple[HTTPStatus, int | None]]] = {
    InvalidJob: (HTTPStatus.BAD_REQUEST, None),
    InvalidKey: (HTTPStatus.BAD_REQUEST, None),
    KeyReused: (HTTPStatus.UNPROCESSABLE_ENTITY, None),
    JobDeleted: (HTTPStatus.GONE, None),
    JobNotFound: (HTTPStatus.NOT_FOUND, None),
    IllegalMove: (HTTPStatus.CONFLICT, None),
    CapacityReached: (HTTPStatus.TOO_MANY_REQUESTS, 1),
    Draining: (HTTPStatus.SERVICE_UNAVAILABLE, 5),
    # No Retry-After for these: a client that obeyed it without a key might double its job.
    OutcomeInDoubt: (HTTPStatus.SERVICE_UNAVAILABLE, None),
    StorageFailed: (HTTPStatus.SERVICE_UNAVAILABLE, 1),
    pykka.ActorDeadError: (HTTPStatus.SERVICE_UNAVAILABLE, 5),
    OutcomeUnknown: (HTTPStatus.SERVICE_UNAVAILABLE, None),
    Unanswered: (HTTPStatus.SERVICE_UNAVAILABLE, 1),
}


MEDIA_PROBLEM: Final = "application/problem+json"


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error (RFC 9457)."""

    title: str
    status: int
    #: What was wrong, and what to change.
    detail: str
    #: How many jobs had been dealt with before, by an operation on many.
    cancelled: int | None = None
    requested: int | None = None
    retried: int | None = None


def problem(status: HTTPStatus, detail: str, **members: int) -> Problem:
    """Return the problem that an answer with this status carries."""
    return Problem(status.phrase, status, detail, **members)


def install(app: falcon.asgi.App[Request, falcon.asgi.Response]) -> None:
    """Make the app answer every error with a problem."""
    app.set_error_serializer(_render)
    for error in ANSWERS:
        app.add_error_handler(error, _refuse)


async def _refuse(
    req: Request,
    resp: falcon.asgi.Response | None,
    error: Exception,
    _params: dict[str, Any],
    **_websocket: object,
) -> None:
    assert resp is not None
    refuse(req, resp, error)


def refuse(req: Request, resp: falcon.asgi.Response, error: Exception, **members: int) -> None:
    """Answer with what the actors refused, and with these members besides."""
    # It raises no HTTPError for this: falcon would keep that in a frame of its traceback, a circle that holds
    # the request, with its payload, until the garbage collector comes.
    status, retry_after = next(answer for kind, answer in ANSWERS.items() if isinstance(error, kind))
    if retry_after is not None:
        resp.set_header("Retry-After", str(retry_after))
    is_unknown = isinstance(error, OutcomeInDoubt | OutcomeUnknown)
    _write(resp, status, f"{error}{_advice(req) if is_unknown else ''}", **members)


def _advice(req: Request) -> str:
    if req.method == "POST" and req.uri_template == "/jobs":
        return "; repeat the request under the same Idempotency-Key, and nothing is stored twice"
    return "; repeat the request, which does no harm"


def _render(req: Request, resp: falcon.asgi.Response, error: falcon.HTTPError) -> None:
    _write(resp, HTTPStatus(error.status_code), error.description or _default_detail(req, error))


def _write(resp: falcon.asgi.Response, status: HTTPStatus, detail: str, **members: int) -> None:
    resp.status = status
    resp.content_type = MEDIA_PROBLEM
    resp.data = msgspec.json.encode(problem(status, detail, **members))


def _default_detail(req: Request, error: falcon.HTTPError) -> str:
    if isinstance(error, falcon.HTTPMethodNotAllowed):
        allowed = dict(error.headers or ()).get("Allow", "")
        return f"{req.method} is not allowed here; allowed: {allowed}"
    if isinstance(error, falcon.HTTPNotFound):
        advice = (
            "an address has no slash at its end" if req.path.endswith("/") else "GET / says what is where"
        )
        return f"there is nothing at {req.path}; {advice}"
    if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "internal error; see the service's log"
    return "the request cannot be understood"
