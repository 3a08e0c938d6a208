"""The operations that say something of the service itself."""

from http import HTTPStatus
from typing import Any, Final

from api.health import Report
from api.openapi.operation import Answer, Operation

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
