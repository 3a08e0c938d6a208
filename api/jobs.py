"""The jobs over HTTP."""

from typing import Annotated, Final
from urllib.parse import urlencode

import falcon
import falcon.asgi
import msgspec
import pykka
from msgspec import Meta, Raw, field
from msgspec.structs import force_setattr, replace

from actors import opaque
from actors.errors import InvalidJob
from actors.lifecycle import Job, Status
from actors.messages import MOST_RETRIES, Cancel, Get, ListJobs, Retry, Submit
from actors.requests import MOST_JOBS, SubmitAll, SubmitOnce
from actors.store import JobStore
from actors.validation import Validation
from api import preferences
from api.asking import ask, finished
from api.idempotency import key_of
from api.problems import ANSWERS
from api.rendering import Rendering
from api.request import Request

#: What a wrong query is told.
ADVICE: Final = (
    "a list takes `limit` (1 to 1000), `after` (a job id), `order` (oldest or newest), `type` and `status`"
    f" ({', '.join(Status)})"
)
#: Of a job that was submitted without one.
EMPTY: Final = Raw(b"{}")
#: Where JSON is written without integers, 2.0 is one.
WHOLE: Final = Meta(ge=0, le=MOST_RETRIES, multiple_of=1)
RETRIES: Final = Meta(
    description="How often a failed attempt is followed by another, if not as the handler says."
)
PAYLOAD: Final = Meta(description="Any JSON value, for the handler.", extra_json_schema={"default": {}})


class Submission(Submit, frozen=True, forbid_unknown_fields=True):
    """A job to be stored."""

    #: It is parsed with the rest of the body, and kept as the bytes that came.
    payload: Annotated[Raw, PAYLOAD] = field(default_factory=lambda: EMPTY)
    max_retries: Annotated[Annotated[float, WHOLE] | None, RETRIES] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.max_retries is not None:
            force_setattr(self, "max_retries", int(self.max_retries))
        super().__post_init__()

    def _opaque(self) -> Raw:
        return opaque.parsed(self.payload)


Submissions = Annotated[tuple[Submission, ...], Meta(min_length=1, max_length=MOST_JOBS)]
#: What a body may be.
Submitted = Submission | Submissions


class Jobs:
    """`/jobs`: submit one or many, list many."""

    def __init__(self, store: pykka.ActorRef[JobStore], validation: Validation) -> None:
        self._store = store
        self._validation = validation
        self._decoder = msgspec.json.Decoder[Submitted](Submitted)
        self._encoder = msgspec.json.Encoder()

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Submit a job, or an array of jobs; under an Idempotency-Key only once."""
        jobs, is_replayed = await self._submitted(req)
        if is_replayed:
            resp.set_header("Idempotent-Replayed", "true")
        if isinstance(jobs, Job) and (seconds := preferences.wait(req)) is not None:
            jobs = await self._awaited(jobs, seconds)
            resp.set_header("Preference-Applied", preferences.applied(seconds))
        resp.status = falcon.HTTP_201
        if isinstance(jobs, Job):
            resp.location = f"/jobs/{jobs.id}"
        resp.data = self._encoder.encode(jobs)

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """List jobs, with a Link to the next page if there is one (RFC 8288)."""
        query = req.query(ListJobs, ADVICE)
        one_more = replace(query, limit=query.limit + 1)
        jobs: list[Job] = await ask(self._store, one_more)
        page = jobs[: query.limit]
        if len(jobs) > len(page):
            resp.append_link(f"/jobs?{urlencode({**req.params, 'after': page[-1].id})}", "next")
        resp.data = self._encoder.encode(page)

    on_head = on_get

    async def _awaited(self, job: Job, seconds: int) -> Job:
        """Return the job once it is finished; as far as it is known if that fails, because it is stored."""
        try:
            return await finished(self._store, job.id, seconds)
        except tuple(ANSWERS):
            return job

    async def _submitted(self, req: Request) -> tuple[Job | list[Job], bool]:
        """Return what was stored, and whether that was so before, under the same key."""
        key, body = key_of(req), await req.json_body()
        message = self._submission(body)
        if key is None:
            await self._check(message)
            return await ask(self._store, message), False
        once = SubmitOnce(key, message, body, await self._refusal(message))
        stored: tuple[Job | list[Job], bool] = await ask(self._store, once)
        return stored

    async def _check(self, message: Submit | SubmitAll) -> None:
        if isinstance(message, SubmitAll):
            await self._validation.check_all_aside(message)
        else:
            await self._validation.check_aside(message)

    async def _refusal(self, message: Submit | SubmitAll) -> InvalidJob | None:
        try:
            await self._check(message)
        except InvalidJob as error:
            return error.with_traceback(None)
        return None

    def _submission(self, body: bytes) -> Submit | SubmitAll:
        try:
            found = self._decoder.decode(body)
        except msgspec.DecodeError as error:
            raise falcon.HTTPBadRequest(description=f"not a job: {opaque.explained(body, error)}") from None
        except UnicodeDecodeError as error:
            raise falcon.HTTPBadRequest(description=f"not UTF-8: {error}") from None
        except RecursionError:
            raise falcon.HTTPBadRequest(description=f"not a job: {opaque.TOO_DEEP}") from None
        return found if isinstance(found, Submit) else SubmitAll(found)


class OneJob:
    """`/jobs/{id}`: show one, cancel it."""

    def __init__(self, store: pykka.ActorRef[JobStore]) -> None:
        self._store = store
        self._rendering = Rendering()

    async def on_get(self, req: Request, resp: falcon.asgi.Response, job_id: str) -> None:
        """Show a job with its payload and result; if preferred, once it is finished."""
        seconds = preferences.wait(req)
        if seconds is None and req.if_none_match:
            summary: Job = await ask(self._store, Get(job_id, is_whole=False))
            if self._rendering.is_known(summary, req, resp):
                return
        job = await finished(self._store, job_id, seconds or 0)
        if seconds is not None:
            resp.set_header("Preference-Applied", preferences.applied(seconds))
        self._rendering.show(job, req, resp)

    on_head = on_get

    async def on_delete(self, _req: Request, resp: falcon.asgi.Response, job_id: str) -> None:
        """Cancel a job; 202 if that has to wait for its handler's next yield."""
        job: Job = await ask(self._store, Cancel(job_id))
        resp.status = falcon.HTTP_202 if job.status is Status.PROCESSING else falcon.HTTP_200
        resp.data = msgspec.json.encode(job)


class Retries:
    """`/jobs/{id}/retry`: run a failed or cancelled job again."""

    def __init__(self, store: pykka.ActorRef[JobStore]) -> None:
        self._store = store

    async def on_post(self, _req: Request, resp: falcon.asgi.Response, job_id: str) -> None:
        """Make the job pending again."""
        resp.data = msgspec.json.encode(await ask(self._store, Retry(job_id)))
