"""The operations that say something of the service itself."""

from http import HTTPStatus
from typing import Any, Final

from actors.lifecycle import Status
from actors.messages import ListTypes
from actors.store.census import JobType
from api.health import Report
from api.job_types import ADVICE
from api.metrics import Summary
from api.openapi.jobs import UNAVAILABLE
from api.openapi.operation import Answer, Header, Operation

OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/health",
        name="getHealth",
        summary="Tell whether jobs can be stored, and which do not run",
        description="It never waits. A degraded service stores jobs, but does not run all of them.",
        answers={
            HTTPStatus.OK: Answer(
                "Jobs can be stored.",
                Report,
                Report(
                    "degraded",
                    ["jobs of type 'email' wait: it has no handler; add one, or cancel them"],
                ),
            )
        },
        errors={HTTPStatus.SERVICE_UNAVAILABLE: "the service is stopping"},
    ),
    Operation(
        method="GET",
        path="/types",
        name="listTypes",
        summary="List the types of job",
        description="Those that have a handler or jobs, by name; last, without a name, all that are not"
        " counted apart.",
        query=ListTypes,
        answers={
            HTTPStatus.OK: Answer(
                "The types of one page.",
                list[JobType],
                [JobType(type="email", has_handler=True, jobs=dict.fromkeys(Status, 0))],
                headers=(Header("Link", 'The next page, if there is one, as `rel="next"`.'),),
            )
        },
        errors={
            HTTPStatus.BAD_REQUEST: f"Expected `int` <= 1000 - at `$.limit`; {ADVICE}",
            **UNAVAILABLE,
        },
    ),
    Operation(
        method="GET",
        path="/metrics",
        name="getMetrics",
        summary="Count and measure",
        description="In JSON, or as text for Prometheus. It never waits.",
        answers={
            HTTPStatus.OK: Answer(
                "The metrics.",
                Summary,
                Summary(*(0 for _ in Summary.__struct_fields__)),
                headers=(Header("Vary", "By what the answer was chosen.", is_required=True),),
                texts=dict.fromkeys(
                    ("text/plain", "application/openmetrics-text"), "gofer_workers_alive 1.0"
                ),
            )
        },
    ),
    Operation(
        method="GET",
        path="/openapi.json",
        name="getDocument",
        summary="Describe this API",
        answers={HTTPStatus.OK: Answer("An OpenAPI document.", dict[str, Any], {"openapi": "3.1.0"})},
    ),
    Operation(
        method="GET",
        path="/",
        name="getIndex",
        summary="Say what is where",
        answers={
            HTTPStatus.OK: Answer(
                "What each method of each path does.",
                dict[str, dict[str, str]],
                {"/health": {"GET": "Tell whether jobs can be stored, and which do not run"}},
            )
        },
    ),
)
