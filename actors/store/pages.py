"""How pages of jobs are read: so that no more rows are read than are returned.

Two indexes are enough for lists by status, by type and by both, in the order of the ids, which every index
ends with. A list that leaves open what comes between (whether a job is delayed, or its status) is put
together of one ordered part for each value of that; SQLite merges them. The indexes are named, as its
planner would guess from how much it thinks that each filter leaves.
"""

from collections.abc import Iterable
from typing import Any, Final

from actors.lifecycle import Status
from actors.messages import ListJobs
from actors.requests import Many
from actors.store.schema import SIZE

#: The columns that make a Job, in this order; `payload` and `result` may follow.
SUMMARY: Final = (
    "id, type, status, created_at, attempts, max_retries, started_at, finished_at, run_at, last_error"
)
WHOLE: Final = (
    f"SELECT crashes, interruptions, {SUMMARY}, CAST(payload AS BLOB), CAST(result AS BLOB)"
    " FROM jobs WHERE id = ?"
)
ONE: Final = f"SELECT {SUMMARY} FROM jobs WHERE id = ?"
IS_DELAYED: Final = "(run_at IS NOT NULL)"
BY_STATUS: Final = f"SELECT {SUMMARY} FROM jobs INDEXED BY jobs_by_status WHERE"
#: What makes a Due, in this order: what is wrong elsewhere in a row stops no page.
LINE: Final = "SELECT id, type, run_at FROM jobs INDEXED BY"
BY_TYPE: Final = f"SELECT {SUMMARY} FROM jobs INDEXED BY jobs_by_type WHERE"
#: Pending jobs without a `run_at`, by id: after which one, and how many.
IMMEDIATE: Final = (
    f"{LINE} jobs_by_status WHERE status = 'pending' AND {IS_DELAYED} = 0 AND id > ? ORDER BY id LIMIT ?"
)
BY_RUN_AT: Final = f"{LINE} jobs_by_run_at WHERE status = 'pending' AND run_at IS NOT NULL AND"
#: Pending jobs with a `run_at`, by that and id: after which, and how many. To compare both at once would
#: read all that are due at the same time.
DELAYED: Final = (
    f"{BY_RUN_AT} run_at = :run_at AND id > :id UNION ALL {BY_RUN_AT} run_at > :run_at"
    " ORDER BY run_at, id LIMIT :limit"
)
SET_BACK: Final = (
    "UPDATE jobs INDEXED BY jobs_by_run_at SET run_at = run_at - ?"
    " WHERE status = 'pending' AND run_at IS NOT NULL"
)
#: Jobs, each with the bytes of its payload, its past, and whether its attempt is to be cancelled.
PASTS: Final = (
    f"SELECT length(CAST(payload AS BLOB)), crashes, interruptions, is_unwanted, {SUMMARY}"
    " FROM jobs INDEXED BY"
)
PROCESSING: Final = f"{PASTS} jobs_by_status WHERE status = 'processing'"
#: Jobs of an interval of ids, which are few.
SPAN: Final = f"SELECT {SUMMARY} FROM jobs NOT INDEXED WHERE id >= ? AND id < ? ORDER BY id"
#: How many jobs there are of which type and status: one pass over the index, for a start only.
COUNT_TYPES: Final = "SELECT type, status, count(*) FROM jobs INDEXED BY jobs_by_type GROUP BY type, status"
#: When the oldest pending job of a type was submitted.
OLDEST: Final = (
    "SELECT created_at FROM jobs INDEXED BY jobs_by_type WHERE type = ? AND status = 'pending'"
    " ORDER BY id LIMIT 1"
)
#: Those that finished first, failed ones or others, if they finished by then: all of them read by the index.
DELETE_OLDEST: Final = f"""DELETE FROM jobs WHERE id IN (
    SELECT id FROM jobs INDEXED BY jobs_by_finish
    WHERE finish IS NOT NULL AND (status = 'failed') = ? ORDER BY finish LIMIT ?
) AND finished_at <= ? RETURNING type, status, {SIZE}"""


def listed(query: ListJobs, after: int | None) -> tuple[str, dict[str, Any]]:
    """Return the statement that reads the jobs asked for, and its values."""
    is_newest_first = query.order == "newest"
    rest = "" if after is None else f" AND id {'<' if is_newest_first else '>'} :after"
    parts = " UNION ALL ".join(part + rest for part in _parts(query))
    sql = f"{parts} ORDER BY id {'DESC' if is_newest_first else 'ASC'} LIMIT :limit"
    values = {"status": query.status, "type": query.type, "after": after, "limit": query.limit}
    return sql, values


def matching(statuses: Iterable[Status], query: Many, limit: int) -> tuple[str, dict[str, Any]]:
    """Return the statement that reads the first jobs with these statuses, and its values."""
    if query.type is None:
        rules = [
            f"jobs_by_status WHERE status = '{status}' AND {IS_DELAYED} = {delayed}"
            for status in statuses
            for delayed in (0, 1)
        ]
    else:
        rules = [f"jobs_by_type WHERE type = :type AND status = '{status}'" for status in statuses]
    parts = " UNION ALL ".join(f"{PASTS} {rule} AND id > :after AND id <= :last" for rule in rules)
    first, last = int(query.after, 16), int(query.last or query.after, 16)
    values = {"type": query.type, "after": first, "last": last, "limit": limit}
    return f"{parts} ORDER BY id LIMIT :limit", values


def _parts(query: ListJobs) -> list[str]:
    match query:
        case ListJobs(status=None, type=None):
            return [f"SELECT {SUMMARY} FROM jobs NOT INDEXED WHERE TRUE"]
        case ListJobs(type=None):
            return [f"{BY_STATUS} status = :status AND {IS_DELAYED} = {delayed}" for delayed in (0, 1)]
        case ListJobs(status=None):
            return [f"{BY_TYPE} type = :type AND status = '{status}'" for status in Status]
        case _:
            return [f"{BY_TYPE} type = :type AND status = :status"]
