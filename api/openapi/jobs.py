"""The operations on jobs."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Final

from msgspec import Meta, Raw
from msgspec.structs import replace

from actors.lifecycle import Job, Status
from actors.messages import ListJobs
from api.bulk import CancelFilter, Cancelled, Retried, RetryFilter
from api.jobs import ADVICE, Submitted
from api.openapi.operation import Answer, Body, Header, Operation

ID: Final = "0019c1d2e3f4a5b6"
NOW: Final = datetime(2026, 1, 2, 3, 4, 5, 678900, UTC)
PENDING: Final = Job(id=ID, type="email", status=Status.PENDING, created_at=NOW, attempts=0, max_retries=0)
PROCESSING: Final = replace(
    PENDING, status=Status.PROCESSING, attempts=1, started_at=NOW + timedelta(seconds=1), progress=0.4
)
COMPLETED: Final = replace(
    PROCESSING,
    status=Status.COMPLETED,
    finished_at=NOW + timedelta(seconds=2),
    progress=None,
    raw_payload=Raw(b'{"to":"user@example.com"}'),
    raw_result=Raw(b'"sent"'),
)
CANCELLED: Final = replace(PENDING, status=Status.CANCELLED, finished_at=NOW + timedelta(seconds=1))

WAIT: Final = Header(
    "Prefer",
    "`wait=N`: answer when the job is finished, or after N seconds (0 to 60) as it is then (RFC 7240).",
)
WAITED: Final = Header("Preference-Applied", "Which wait was applied.")
#: As it is, or as a string of structured fields.
KEY_GIVEN: Final = r'^(?:[!#-~][!-~]{0,254}|"(?:[!#-\[\]-~]|\\["\\]){1,255}")$'
KEY: Final = Header(
    "Idempotency-Key",
    "1 to 255 visible ASCII characters, as they are or in double quotes; a repeat of the request under the"
    " same key stores nothing more, and is answered with the same jobs.",
    Annotated[str, Meta(extra_json_schema={"pattern": KEY_GIVEN})],
)
TAG: Final = Header("ETag", "Another one whenever the job has changed (RFC 9110).", is_required=True)
#: To the operations on one job.
LINKS: Final = dict.fromkeys(("getJob", "cancelJob", "retryJob"), "$response.body#/id")

NOT_FOUND: Final = {
    HTTPStatus.NOT_FOUND: f"there is no job {ID!r}; it never existed, or it finished long ago and was deleted"
}
UNAVAILABLE: Final = {
    HTTPStatus.SERVICE_UNAVAILABLE: "the JobStore did not answer within 5 seconds; nothing was stored"
}
FULL: Final = {
    HTTPStatus.TOO_MANY_REQUESTS: "10000 jobs are pending, which is the capacity (GOFER_CAPACITY); try again"
    " later"
}

OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/jobs",
        name="submitJob",
        summary="Submit a job, or an array of jobs",
        description="It is answered when the job is stored; from then on it will run. Of an array all jobs"
        " are stored, or none.",
        headers=(KEY, WAIT),
        body=Body(
            Submitted,
            {
                "a job": {"type": "email", "payload": {"to": "user@example.com"}},
                "a job that waits a minute, and is tried again twice": {
                    "type": "email",
                    "payload": {"to": "user@example.com"},
                    "delay": 60,
                    "max_retries": 2,
                },
                "two jobs": [{"type": "email", "payload": {"to": "user@example.com"}}, {"type": "email"}],
            },
        ),
        answers={
            HTTPStatus.CREATED: Answer(
                "The job, without its payload, unless it was waited for; or all jobs of the array.",
                Job | list[Job],
                PENDING,
                headers=(
                    Header("Location", "Where the job is, if it is one."),
                    Header(
                        "Idempotent-Replayed", "`true` if the jobs were stored before, under the same key."
                    ),
                    WAITED,
                ),
                links=LINKS,
            )
        },
        errors={
            HTTPStatus.BAD_REQUEST: "`type` must be a string of 1 to 255 printable characters, not"
            " only spaces",
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "a body may have 1048576 bytes; put what is larger into a"
            " file or an object store and its address into the payload",
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "send the job as JSON, with Content-Type: application/json",
            HTTPStatus.UNPROCESSABLE_ENTITY: "this Idempotency-Key came with another request; choose a new"
            " one",
            HTTPStatus.GONE: "the job that was stored under this Idempotency-Key has been deleted since",
            **FULL,
            **UNAVAILABLE,
        },
    ),
    Operation(
        method="GET",
        path="/jobs",
        name="listJobs",
        summary="List jobs",
        description="They come without payloads and results.",
        query=ListJobs,
        answers={
            HTTPStatus.OK: Answer(
                "The jobs of one page.",
                list[Job],
                [PENDING],
                headers=(Header("Link", 'The next page, if there is one, as `rel="next"`.'),),
            )
        },
        errors={
            HTTPStatus.BAD_REQUEST: f"Expected `int` <= 1000 - at `$.limit`; {ADVICE}",
            HTTPStatus.NOT_FOUND: "`after` is '7fffffffffffffff', which is not the id of a job",
            **UNAVAILABLE,
        },
    ),
    Operation(
        method="GET",
        path="/jobs/{job_id}",
        name="getJob",
        summary="Show a job",
        description="It comes with its payload and, when it is completed, its result.",
        headers=(WAIT, Header("If-None-Match", "The `ETag` of the job as the client has it.")),
        answers={
            HTTPStatus.OK: Answer("The job.", Job, COMPLETED, headers=(TAG, WAITED), links=LINKS),
            HTTPStatus.NOT_MODIFIED: Answer("The job is as the client has it.", headers=(TAG, WAITED)),
        },
        errors={**NOT_FOUND, **UNAVAILABLE},
    ),
    Operation(
        method="DELETE",
        path="/jobs/{job_id}",
        name="cancelJob",
        summary="Cancel a job",
        answers={
            HTTPStatus.OK: Answer(
                "The job, which was pending and is cancelled.", Job, CANCELLED, links=LINKS
            ),
            HTTPStatus.ACCEPTED: Answer(
                "The job, which is processing and is cancelled when its handler next yields.",
                Job,
                PROCESSING,
                links=LINKS,
            ),
        },
        errors={
            **NOT_FOUND,
            HTTPStatus.CONFLICT: f"job {ID} is completed; to cancel it, it must be pending or processing",
            **UNAVAILABLE,
        },
    ),
    Operation(
        method="POST",
        path="/jobs/{job_id}/retry",
        name="retryJob",
        summary="Run a failed or cancelled job again",
        answers={HTTPStatus.OK: Answer("The job, which is pending.", Job, PENDING, links=LINKS)},
        errors={
            **NOT_FOUND,
            HTTPStatus.CONFLICT: f"job {ID} is completed; to retry it, it must be failed or cancelled",
            **FULL,
            **UNAVAILABLE,
        },
    ),
    Operation(
        method="POST",
        path="/jobs/cancel",
        name="cancelJobs",
        summary="Cancel all jobs that match",
        description="In steps, between which other requests are answered. If it is broken off, a repeat goes"
        " on.",
        query=CancelFilter,
        answers={HTTPStatus.OK: Answer("How many there were.", Cancelled, Cancelled(10, 2))},
        errors={
            HTTPStatus.BAD_REQUEST: "this takes no body; the query may have `type` and `status`",
            **UNAVAILABLE,
        },
    ),
    Operation(
        method="POST",
        path="/jobs/retry",
        name="retryJobs",
        summary="Run all failed or cancelled jobs that match again",
        description="In steps, as `cancelJobs`. A refusal says how many are pending by then.",
        query=RetryFilter,
        answers={HTTPStatus.OK: Answer("How many there were.", Retried, Retried(10))},
        errors={
            HTTPStatus.BAD_REQUEST: "this takes no body; the query may have `type` and `status`",
            **FULL,
            **UNAVAILABLE,
        },
    ),
)
