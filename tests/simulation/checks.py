"""What must hold: at each step, whenever time passes, and in the file when a life has ended."""

import json
import math
from collections.abc import Callable
from typing import Final

import msgspec

from actors.lifecycle import FINISHED, Job, Status
from actors.messages import Outcome, Release
from tests.simulation.book import Answer, Book, How, Run, Story, View
from tests.simulation.clock import EPOCH, Clock
from tests.simulation.events import Events
from tests.simulation.faults import Kind, Plan
from tests.simulation.production import AT_MOST_ONCE, NOT_STORED, Row
from tests.simulation.production import CONVICTED as GUILTY

#: Crashes in a row after which a job is a suspect, must run alone, and is convicted.
SUSPECT, ALONE = 2, 3
#: The ends of runs that were cut off, by the end of the process and by an executor.
#: Seconds by which a job may be early, as times are kept in microseconds.
ROUNDING: Final = 0.00001


class Checks:
    """Compares what happens with the book, and notes what must not be."""

    def __init__(self, plan: Plan, book: Book, events: Events, clock: Clock) -> None:
        self._plan = plan
        self._book = book
        self._events = events
        self._clock = clock
        #: Which process it is, counted from 1.
        self.life = 0
        #: When a stop waits for running jobs no longer: what ends later is not stored.
        self.stopped_at = math.inf
        #: The last job that a lone Worker began for the first time.
        self._last_begun = ""
        #: Outcomes that were told, to be told again.
        self.told: list[Outcome] = []

    def begin_life(self) -> None:
        """Note that another process starts."""
        self.life += 1
        self.stopped_at = math.inf
        self._last_begun = ""
        # A run's number is its process's own, and so is what is told of it.
        self.told = [outcome for outcome in self.told if not isinstance(outcome, Release)]

    # At each step.

    def reserved(self, job: Job) -> None:
        """Note that a job is reserved."""
        latest = EPOCH + self._clock.now + self._clock.forward
        if job.run_at is not None and latest < job.run_at.timestamp() - ROUNDING:
            self._events.fail("a job is reserved before it is due", f"{job.id}, which is due at {job.run_at}")

    def began(self, job: Job, *, is_stored: bool) -> Callable[[Outcome], None]:
        """Note that a handler's run begins; return what notes its end."""
        story = self._book.stories[job.payload["n"]]
        self._events.note(f"job {story.number} begins, attempt {job.attempts}")
        self._book.know(story, job.id)
        if not is_stored:
            self._events.fail("a job begins that is not reserved", self._told(story, "is not in the file"))
        if problem := self._problem_of_beginning(story, job):
            self._events.fail(problem, self._told(story, f"begins attempt {job.attempts}"))
        run = Run(job.attempts, self.life)
        story.runs.append(run)
        return lambda outcome: self._ended(story, run, outcome)

    def _problem_of_beginning(self, story: Story, job: Job) -> str | None:
        accepted = story.accepted_cancel()
        if story.answer is Answer.NO:
            return "a refused job runs"
        if any(run.end is None for run in story.runs):
            return "a job runs twice at once"
        if any(run.attempt == job.attempts and run.end != "Release" for run in story.runs):
            return "an attempt begins twice"
        if any(run.life == self.life and run.end == "Complete" for run in story.runs):
            return "a completed job runs again"
        if story.is_over:
            return "a job that was shown as finished runs again"
        if accepted and accepted.job and not _may_run(story, accepted.job, job):
            return "a job runs after an accepted cancel"
        if self._has_failed_for_good(story, job):
            return "a job runs again that has no retries left"
        if self._is_early(story, job) or self._backs_off(story, job):
            return "a job runs before it is due"
        if self._is_spent(story) and not story.retries:
            return "a job that was cut off runs again"
        if problem := self._problem_of_suspects(story):
            return problem
        return "jobs run out of order" if self._is_out_of_order(story, job) else None

    def _is_spent(self, story: Story) -> bool:
        """Tell whether the job was cut off where that is its end."""
        return story.is_spent or any(
            run.end == "CutOff" and self._plan.is_once(run.life) for run in story.runs
        )

    def _problem_of_suspects(self, story: Story) -> str | None:
        """Suspects run one at a time, and later with nothing else; then a crash convicts."""
        own = story.crashes.at_least(story.runs) if not story.retries else 0
        others = [o for o in self._book.stories if any(run.end is None for run in o.runs) and not o.retries]
        crashes = [other.crashes.at_least(other.runs) for other in others]
        if own >= ALONE and story.crashes.has_crashed_alone:
            return "a job runs again after too many crashes"
        if own >= SUSPECT and any(other >= SUSPECT for other in crashes):
            return "two suspects run at once"
        if others and max(own, *crashes, 0) >= ALONE:
            return "a suspect does not run alone"
        return None

    def _has_failed_for_good(self, story: Story, job: Job) -> bool:
        failed = sum(run.end == "Fail" and run.life == self.life for run in story.runs)
        return failed > job.max_retries and not story.retries

    def _backs_off(self, story: Story, job: Job) -> bool:
        """Tell whether an answer has shown that the attempt is not due; the clock may have been set since."""
        view = story.view
        if view is None or view.run_at is None or view.status is not Status.PENDING:
            return False
        is_next = view.attempts == job.attempts - 1 and view.retries == story.retried and story.is_settled
        latest = EPOCH + self._clock.now + self._clock.forward
        return is_next and latest < view.run_at.timestamp() - ROUNDING

    def _is_early(self, story: Story, job: Job) -> bool:
        if not story.submit.delay or story.job is None or story.retries or job.attempts > 1 or story.runs:
            return False
        passed = self._clock.now - story.sent_at + self._clock.forward - story.forward
        return passed < story.submit.delay - ROUNDING

    def _is_out_of_order(self, story: Story, job: Job) -> bool:
        if self._plan.workers > 1 or job.attempts > 1 or story.runs or story.retries or story.submit.delay:
            return False
        if story.cancels:
            return False  # It was put back into the channel behind others, if the cancel was not stored.
        if any(other.crashes.most >= ALONE for other in self._book.stories):
            return False  # It took another's place, and that one was sent again.
        last, self._last_begun = self._last_begun, max(self._last_begun, job.id)
        return job.id < last

    def _ended(self, story: Story, run: Run, outcome: Outcome) -> None:
        if run.end == "cut":
            return  # It has outlasted a stop, and tells nobody.
        run.end, run.ended_at = type(outcome).__name__, self._clock.now
        self._events.note(f"job {story.number} ends, attempt {run.attempt}: {run.end}")
        if run.end == "Release":
            self._events.reach("a job given back at a stop")
        if run.end == "CutOff":
            self._events.reach("a job that its executor lost")
        self.told.append(outcome)
        if run.end == "Cancelled" and not story.may_be_cancelled():
            self._events.fail(
                "a job is interrupted that nobody cancelled", self._told(story, "is interrupted")
            )

    def saw(self, story: Story, job: Job, *, since: int, retried: int, is_settled: bool) -> None:
        """Check what an answer shows, if no retry has come between; it was asked for at that event."""
        if not (is_settled and story.is_settled and retried == story.retried):
            return
        earlier = story.view
        if earlier and earlier.retries == retried and earlier.came < since and _takes_back(earlier, job):
            what = f"was shown as {earlier.status} in {earlier.attempts}, then {job.status} in {job.attempts}"
            self._events.fail("an answer takes back what an earlier one showed", self._told(story, what))
        if job.status is Status.COMPLETED and job.raw_result is not msgspec.UNSET:
            self._check_result(story, job.result)
        if not earlier or earlier.came < since:
            story.view = View(job.status, job.attempts, job.run_at, retried, self._events.count)

    def _check_result(self, story: Story, result: object) -> None:
        if not isinstance(result, dict) or result.get("n") != story.number:
            self._events.fail("a job has another job's result", self._told(story, f"has {result!r:.80}"))

    # When a life has ended, in the file.

    def check_file(self, rows: list[Row] | str, how: How, *, is_certain: bool) -> None:
        """Compare the file with the book; `is_certain` after a stop before which all could be stored."""
        if isinstance(rows, str):
            self._events.fail("the database is damaged", rows)
            return
        found: dict[int, Row] = {}
        for row in rows:
            number = json.loads(row.payload)["n"]
            if number in found:
                self._events.fail("a job is stored twice", f"job {number}")
            found[number] = row
        is_alone = sum(row.is_cut_short for row in rows) == 1
        for story in self._book.stories:
            row_or_none = found.get(story.number)
            if row_or_none is None:
                self._check_missing(story)
                continue
            self._book.know(story, row_or_none.id) if story.id is None else None
            if problem := self._problem_of_row(story, row_or_none, is_certain=is_certain):
                row = row_or_none
                self._events.fail(
                    problem, self._told(story, f"is {row.status} in {row.attempts}: {row.last_error!r:.100}")
                )
            self._note_end(story, row_or_none, how, is_alone=is_alone)

    def _note_end(self, story: Story, row: Row, how: How, *, is_alone: bool) -> None:
        """Note what the file says of how the life has ended for a job."""
        story.crashes.count(row, story.runs, how, is_alone=is_alone)
        if row.is_cut_short:
            story.is_spent |= self._plan.is_once(self.life + 1)
            if all(run.attempt != row.begun for run in story.runs):
                story.unrun.add(row.begun)

    def _check_missing(self, story: Story) -> None:
        may_be_deleted = self._plan.has(Kind.KEEP) and (self._is_spent(story) or story.may_have_finished)
        is_known = story.answer is Answer.YES or story.runs or story.view
        if is_known and not may_be_deleted:
            self._events.fail("a job is lost", self._told(story, "is not in the file"))

    def _problem_of_row(self, story: Story, row: Row, *, is_certain: bool) -> str | None:
        view, last = story.view, story.runs[-1] if story.runs else None
        if story.answer is Answer.NO:
            return "a refused job is stored"
        if story.id != row.id:
            return "a job has changed its id"
        if view and story.is_over and view.status != row.status:
            return "the file takes back what was shown"
        if view and view.attempts - 1 > row.attempts:
            return "the file takes back an attempt that was shown"
        if row.begun < max((run.attempt for run in story.runs if run.end != "Release"), default=0):
            return "an attempt that ran is not counted"
        if not {*range(1, row.attempts + 1)} <= story.unrun | {run.attempt for run in story.runs} | {
            row.begun
        }:
            return "an attempt is counted that never ran"
        is_certain = is_certain and not (last and last.life == self.life and self._was_cut(last))
        if is_certain and row.is_cut_short:
            return "a job is not given back by a stop"
        if is_certain and last and last.life == self.life:
            if last.end == "Complete" and row.status is not Status.COMPLETED:
                return "an outcome is lost"
            if last.end == "Release" and row.status is Status.PENDING and row.attempts != last.attempt - 1:
                return "a release costs an attempt"
        return self._problem_of_end(story, row)

    def _was_cut(self, run: Run) -> bool:
        return run.end == "cut" or run.ended_at >= self.stopped_at - ROUNDING

    def _problem_of_end(self, story: Story, row: Row) -> str | None:
        error = row.last_error or ""
        ends = {run.end for run in story.runs if run.attempt == row.attempts}
        if row.status is Status.COMPLETED and "Complete" not in ends:
            return "a job is completed that was not run to its end"
        if row.status is Status.COMPLETED and json.loads(row.result or "{}").get("n") != story.number:
            return "a job has another job's result"
        if row.status is Status.CANCELLED and not any(c.answer is not Answer.NO for c in story.cancels):
            return "a job is cancelled that nobody cancelled"
        if row.status is not Status.FAILED:
            return None
        if error.startswith(GUILTY):
            self._events.reach("a job convicted")
            is_guilty = story.crashes.most >= ALONE and story.crashes.was_alone
            return None if is_guilty else "a job is convicted too soon"
        if error.endswith(AT_MOST_ONCE):
            return None if self._is_spent(story) else "a job is failed by a crash"
        # What gave way after a cancel was cancelled too, and a retry goes on counting from there.
        counting = {"Fail", "Cancelled", "Release"} if story.cancels else {"Fail"}
        used = sum(run.end in counting for run in story.runs)
        if used <= row.max_retries and not error.startswith(NOT_STORED):
            return "a job is failed that has retries left"
        if "Fail" not in ends and not error.startswith(NOT_STORED):
            return "a job is failed whose handler did not fail"
        return None

    def _told(self, story: Story, what: str) -> str:
        runs = ", ".join(f"{run.attempt} {run.end} in life {run.life}" for run in story.runs)
        return f"job {story.number} ({story.id}, {story.answer.name}) {what}; its runs: {runs or 'none'}"


def _may_run(story: Story, cancelled: Job, job: Job) -> bool:
    """Tell whether the attempt is the one that the cancel was to interrupt, before its handler began."""
    # One that gave way had the same number.
    has_begun = any(run.attempt == job.attempts and run.end != "Release" for run in story.runs)
    return cancelled.status is Status.PROCESSING and cancelled.attempts == job.attempts and not has_begun


def _takes_back(earlier: View, job: Job) -> bool:
    if earlier.status in FINISHED:
        return job.status is not earlier.status
    return job.attempts < earlier.attempts - 1
