"""What was seen of each job from outside: by the clients that asked for it and the handlers that ran it."""

import functools
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from typing import Final

from actors.lifecycle import FINISHED, Job, Status
from actors.messages import Submit
from actors.requests import SubmitOnce
from tests.simulation.production import Row

#: The ends of runs that say nothing of whether the job brings the process down.
INTERRUPTED: Final = frozenset({"Release", "CutOff", "cut"})


class Answer(Enum):
    """What became of a request, as far as its client knows."""

    #: It was not answered yet.
    NONE = auto()
    YES = auto()
    #: Nothing was done, and nothing ever will be.
    NO = auto()
    UNKNOWN = auto()


@dataclass
class Run:
    """A handler's run."""

    attempt: int
    life: int
    #: The outcome's name, "cut" if the process ended first, None while it runs.
    end: str | None = None
    ended_at: float = 0.0


class How(Enum):
    """How a life ended, for the jobs that were running."""

    CRASH = auto()
    #: Told to stop, or by a power cut.
    CUT_OFF = auto()
    #: One or the other: the disk may have refused the mark of the stop.
    EITHER = auto()


@dataclass
class Crashes:
    """In how many crashes in a row a job was running, as far as that can be seen from outside."""

    fewest: int = 0
    most: int = 0
    #: Whether the file showed no other job at work when this one was last found cut short.
    was_alone: bool = False
    #: Whether that was a crash for sure, and no stop or reboot, which convict no job.
    has_crashed_alone: bool = False
    #: The attempt, and how many runs there were, when the job was last found cut short; `fewest` before.
    _attempts: int = 0
    _runs: int = 0
    _before: int = 0

    def at_least(self, runs: list[Run]) -> int:
        """Return how many there are for sure, if the job has not ended in another way since."""
        has_ended = any(run.end not in {None, *INTERRUPTED} for run in runs[self._runs :])
        return 0 if has_ended else self.fewest

    def count(self, row: Row, runs: list[Run], how: How, *, is_alone: bool) -> None:
        """Look at the job in the file after a life: processing, or as good as begun, it was cut short."""
        since, self._runs = runs[self._runs :], len(runs)
        stored = [run for run in since if not (row.is_cut_short and run.attempt == row.begun)]
        if any(run.end not in INTERRUPTED for run in stored):
            self.fewest = self.most = 0
        if row.status is not Status.PROCESSING and not row.is_certain:
            return
        self.was_alone = is_alone
        self.has_crashed_alone = is_alone and how is How.CRASH
        if row.begun == self._attempts and not since:
            # The same end, as the process after it did not come so far as to note it; but by then the
            # machine may have been started again, and the crash not be seen any more.
            self.fewest = self._before if how is not How.CRASH else self.fewest
            return
        self._before, self._attempts = self.fewest, row.begun
        self.fewest += how is How.CRASH
        self.most += how is not How.CUT_OFF


@dataclass
class Request:
    """A cancel or a retry, and when it was sent and answered, in events."""

    sent: int
    answer: Answer = Answer.NONE
    answered: int = 0
    #: The job as the answer showed it.
    job: Job | None = None


@dataclass
class View:
    """A job as an answer showed it."""

    status: Status
    attempts: int
    run_at: datetime | None
    #: How many retries may have been done before, and when the answer came, in events.
    retries: int
    came: int


@dataclass
class Story:
    """All that was seen of one job."""

    number: int
    submit: Submit
    #: Seconds of the monotonic clock, and by how many the wall clock had been set forward until then.
    sent_at: float
    forward: float
    #: In which life of the service it was sent.
    life: int
    id: str | None = None
    answer: Answer = Answer.NONE
    acknowledged: int = 0
    #: Seconds of the monotonic clock.
    answered_at: float | None = None
    job: Job | None = None
    runs: list[Run] = field(default_factory=list)
    cancels: list[Request] = field(default_factory=list)
    retries: list[Request] = field(default_factory=list)
    view: View | None = None
    crashes: Crashes = field(default_factory=Crashes)
    #: Attempts that the file counts, or may count, though no handler ran: the process ended first.
    unrun: set[int] = field(default_factory=set)
    #: Whether it was cut short, and then is not to run again.
    is_spent: bool = False

    @functools.cached_property
    def once(self) -> SubmitOnce | None:
        """The same under a key of its own; every other job has one."""
        return SubmitOnce(f"job-{self.number}", self.submit) if self.number % 2 else None

    @property
    def may_be_repeated(self) -> bool:
        """Whether it has a key, and was stored or may have been."""
        return self.once is not None and self.answer in {Answer.YES, Answer.UNKNOWN}

    @property
    def is_settled(self) -> bool:
        """Whether no retry is under way, so that what is seen now can be compared."""
        return all(retry.answer is not Answer.NONE for retry in self.retries)

    @property
    def retried(self) -> int:
        """How many retries have been done, or may have been."""
        return sum(retry.answer is not Answer.NO for retry in self.retries)

    @property
    def is_over(self) -> bool:
        """Whether an answer showed it finished and nobody has retried it since."""
        view = self.view
        return (
            view is not None and view.status in FINISHED and self.is_settled and view.retries == self.retried
        )

    @property
    def may_have_finished(self) -> bool:
        """Whether it can have finished, and so have been deleted, as far as a client can see."""
        return bool(self.cancels or self.crashes.most or self.runs)

    def accepted_cancel(self) -> Request | None:
        """Return a cancel that was accepted and cannot have been undone by a retry."""
        if not self.is_settled:
            return None
        done = [retry.answered for retry in self.retries if retry.answer is not Answer.NO]
        since = max(done, default=-1)
        return next(
            (cancel for cancel in self.cancels if cancel.answer is Answer.YES and cancel.sent > since),
            None,
        )

    def may_be_cancelled(self) -> bool:
        """Tell whether there is a cancel that can have interrupted what runs now."""
        done = max((retry.sent for retry in self.retries if retry.answer is Answer.YES), default=-1)
        return any(
            cancel.answer in (Answer.NONE, Answer.UNKNOWN)
            or (cancel.answer is Answer.YES and cancel.answered > done)
            for cancel in self.cancels
        )


class Book:
    """The stories of all jobs of a seed."""

    def __init__(self) -> None:
        self.stories: list[Story] = []
        self.by_id: dict[str, Story] = {}

    def add(self, story: Story) -> None:
        """Begin a story."""
        self.stories.append(story)

    def know(self, story: Story, job_id: str) -> None:
        """Note the id of a job."""
        story.id = job_id
        self.by_id[job_id] = story

    def cut(self, now: float, event: int) -> None:
        """Note that the process has ended: what ran is cut off, what was asked has no answer."""
        for story in self.stories:
            if story.answer is Answer.NONE:
                story.answer = Answer.UNKNOWN
            for request in (*story.cancels, *story.retries):
                if request.answer is Answer.NONE:
                    request.answer, request.answered = Answer.UNKNOWN, event
            for run in story.runs:
                if run.end is None:
                    run.end, run.ended_at = "cut", now
