"""Bugs that the simulation must find: each was made, or nearly, and none would show in a quiet run.

A plant is found if one of the first seeds breaks a rule with it. One that is not found says that the
simulation has become blind; one whose text is no longer in the code has to follow it.
"""

from typing import Final, NamedTuple

from tests.simulation.loading import Edit


class Plant(NamedTuple):
    """A bug, as changes of the code."""

    name: str
    edits: tuple[Edit, ...]


def _plant(name: str, module: str, *texts: str) -> Plant:
    """Return the plant that puts the second text of each pair in the first one's place."""
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return Plant(name, tuple(Edit(f"actors.{module}", old, new) for old, new in pairs))


PLANTS: Final = (
    # The disk.
    _plant(
        "a commit is not synced",
        "store.connection",
        '"synchronous": 2',
        '"synchronous": 1',
    ),
    _plant(
        "what a kill left in the WAL is not synced",
        "store.connection",
        "        os.fsync(wal)\n",
        "        pass\n",
    ),
    # Keys.
    _plant(
        "a key is not written with its job",
        "store.keys",
        "        self._write(INSERT + values(rows), tuple(chain.from_iterable(rows)))\n",
        "",
    ),
    _plant("hardly any key is kept", "store.keys", "MOST: Final = 1_000_000", "MOST: Final = 2"),
    _plant(
        "a key is not looked for",
        "store.submissions",
        "if entry := self._database.keys.find(key, message.body):",
        "if entry := None:",
    ),
    # What a batch is.
    _plant(
        "an answer runs ahead of the commit",
        "store.jobstore",
        "            if is_answered:\n                self._batch.add(entry)",
        "            if is_answered:\n                self._batch.add(Entry(message := entry.message))\n"
        "                give([entry])",
    ),
    _plant(
        "a batch is delivered in reverse",
        "store.jobstore",
        "for run in changes.reserved:",
        "for run in changes.reserved[::-1]:",
    ),
    _plant(
        "nothing is rolled back",
        "store.jobstore",
        "            self._ledger.rollback()\n",
        "            pass\n",
    ),
    _plant(
        "the counts are not rolled back",
        "store.totals",
        "        self.jobs.update(jobs)",
        "        return",
    ),
    _plant(
        "the running jobs are not rolled back",
        "store.reservations",
        "        self.runs.rollback()\n",
        "",
    ),
    _plant(
        "the running jobs are not durable",
        "store.reservations",
        "        self.runs.commit()\n",
        "",
    ),
    _plant(
        "the totals are not in the commit",
        "store.database",
        "        self.totals.write()",
        "            pass",
    ),
    _plant(
        "a job is read from before its last move",
        "store.database",
        "self._last_read[0].id == job_id:",
        "self._last_read[0].id != job_id:",
    ),
    # What is reserved.
    _plant(
        "what is reserved is not written",
        "store.ledger",
        "            self._database.life.reserve(self._reserved())\n",
        "            pass\n",
    ),
    _plant(
        "what has begun stays reserved",
        "store.runs",
        "        return self.reserved.pop(job_id)",
        "        return self.reserved[job_id]",
    ),
    _plant(
        "a job is sent before it is reserved",
        "store.jobstore",
        "                self._ledger.reserve(self._backlog)\n",
        "                self._ledger.reserve(self._backlog)\n"
        "                for run in self._ledger.changes.reserved:\n"
        "                    self._channel.send(run)\n"
        "                self._ledger.changes.reserved.clear()\n",
    ),
    _plant(
        "a cancel that is rolled back loses the job that it took back",
        "store.reservations",
        "                self._channel.send(run)\n",
        "                pass\n",
    ),
    _plant(
        "a stop gives nothing back",
        "store.ledger",
        "                self._reservations.take_all_back()\n",
        "",
    ),
    _plant(
        "what had perhaps begun counts as nothing",
        "lifecycle",
        'return replace(begun, status=_moved(begun, "recover"), started_at=None)',
        "return job",
    ),
    _plant(
        "what had perhaps begun runs again although it may run once",
        "store.recovery",
        "lifecycle.perhaps_begun(before, now, at_most_once=at_most_once)",
        "lifecycle.perhaps_begun(before, now, at_most_once=False)",
    ),
    _plant(
        "a cancel does not look into the channel",
        "store.reservations",
        "        if job_id not in self._taken_back:\n            return False\n",
        "",
    ),
    _plant(
        "what was taken from the line is lost in a rollback",
        "store.backlog",
        "            self._put_first(self._taken.pop())\n        for",
        "            self._taken.pop()\n        for",
    ),
    _plant(
        "the marks are not rolled back",
        "store.backlog",
        "        self._immediate, self._delayed = self._durable\n",
        "",
    ),
    _plant(
        "what was stored while nothing is reserved is not in the line",
        "store.jobstore",
        "        self._backlog.add(self._ledger.changes.runnable)\n",
        "        if self._reserves:\n            self._backlog.add(self._ledger.changes.runnable)\n",
    ),
    # What cannot be stored.
    _plant(
        "a beginning is lost while the disk is full",
        "store.faults",
        "Begin:          Fates(K,",
        "Begin:          Fates(R,",
    ),
    _plant(
        "a result is lost while the disk is full",
        "store.faults",
        "Complete:       Fates(K,",
        "Complete:       Fates(R,",
    ),
    _plant(
        "a failure is lost while the disk is full",
        "store.faults",
        "Fail:           Fates(K,",
        "Fail:           Fates(R,",
    ),
    _plant(
        "what is kept is not tried again",
        "store.jobstore",
        "            self.actor_inbox.remind(Resume(), STORAGE_RETRY)\n",
        "            pass\n",
    ),
    # What a job may do.
    _plant("an old attempt ends a new one", "lifecycle", "    if job.attempts != attempt:", "    if False:"),
    _plant(
        "a job has a retry less",
        "lifecycle",
        "return job.attempts - interruptions <= job.max_retries",
        "return job.attempts - interruptions < job.max_retries",
    ),
    _plant(
        "a job has a retry more",
        "lifecycle",
        "return job.attempts - interruptions <= job.max_retries",
        "return job.attempts - interruptions <= job.max_retries + 1",
    ),
    _plant(
        "a release costs an attempt",
        "lifecycle",
        "attempts=job.attempts - 1, started_at",
        "attempts=job.attempts, started_at",
    ),
    _plant(
        "a retry forgets the attempts",
        "lifecycle",
        '"retry"), started_at=None',
        '"retry"), attempts=0, started_at=None',
    ),
    _plant(
        "ids begin again at a start",
        "store.submissions",
        "lifecycle.skipped(database.last_id(), random.getrandbits(GAP_BITS))",
        '"0" * 16',
    ),
    # Crashes.
    _plant(
        "crashes are forgotten at the beginning",
        "store.attempts",
        "self._moves.write(run.job, claimed, run.past, payload=run.payload)",
        "self._moves.write(run.job, claimed, run.past._replace(crashes=0), payload=run.payload)",
    ),
    _plant("crashes convict too soon", "lifecycle", "crashes >= ALONE and was_alone", "crashes >= SUSPECT"),
    _plant("crashes never convict", "lifecycle", "crashes >= ALONE and was_alone", "crashes >= 400"),
    _plant("crashes convict bystanders", "lifecycle", "crashes >= ALONE and was_alone", "crashes >= ALONE"),
    _plant("two suspects run at once", "lifecycle", "SUSPECT: Final = 2", "SUSPECT: Final = 200"),
    _plant("a suspect never runs alone", "lifecycle", "ALONE: Final = 3", "ALONE: Final = 300"),
    _plant(
        "a suspect that waits is forgotten",
        "store.reservations",
        "            backlog.put(Due(job.id, job.type, job.run_at))\n",
        "            pass\n",
    ),
    _plant(
        "a stop counts as a crash",
        "store.life",
        'self._write("UPDATE life SET is_stopping = 1", ())',
        "return",
    ),
    _plant("a power cut counts as a crash", "store.life", ' or "" != last_boot != self._boot', ""),
    _plant(
        "an interruption uses a retry",
        "store.recovery",
        "yield Recovered(before, payload, after, Past(crashes, past.interruptions + 1), reason)",
        "yield Recovered(before, payload, after, Past(crashes, past.interruptions), reason)",
    ),
    _plant(
        "what an executor cuts off uses a retry",
        "store.attempts",
        "before._replace(interruptions=before.interruptions + 1)",
        "before",
    ),
    _plant(
        "at most once is ignored after an executor's failure",
        "store.attempts",
        "once = self._at_most_once",
        "once = False",
    ),
    _plant(
        "at most once is ignored after a crash",
        "lifecycle",
        '    if at_most_once:\n        return failed(job, job.attempts, "the process',
        '    if False:\n        return failed(job, job.attempts, "the process',
    ),
    _plant(
        "at most once is ignored after a stop",
        "lifecycle",
        "    if at_most_once:\n        return failed(job, attempt",
        "    if False:\n        return failed(job, attempt",
    ),
    _plant(
        "a late recovery takes what runs",
        "store.recovery",
        "chain(database.interrupted(), _certain(database)) if it[0].id not in running",
        "chain(database.interrupted(), _certain(database))",
    ),
    # Cancels.
    _plant("a cancel is not stored", "store.database", "SET is_unwanted = 1", "SET is_unwanted = 0"),
    _plant("a crash forgets a cancel", "store.recovery", "        if is_unwanted:", "        if False:"),
    _plant(
        "a release forgets a cancel",
        "store.attempts",
        "case Release() if not is_cancelled:",
        "case Release():",
    ),
    _plant(
        "a failure forgets a cancel",
        "store.attempts",
        "case Fail(error=error) if not is_cancelled:",
        "case Fail(error=error):",
    ),
    _plant(
        "a cancel outlives its run",
        "store.ledger",
        "            self._interrupts.forget(job.id)",
        "            pass",
    ),
    _plant(
        "a cancel interrupts before the commit",
        "store.interventions",
        "            self._moves.changes.cancelled.add(before.id)\n",
        "            self._reservations._interrupts.cancel(before.id)\n",
    ),
    # Time.
    _plant(
        "a job has waited half of its delay",
        "store.backlog",
        "wait = (due.run_at - self._now()).total_seconds()",
        "wait = (due.run_at - self._now()).total_seconds() / 2",
    ),
    _plant(
        "an earlier wait of a job runs it",
        "store.reservations",
        "if job.run_at != due.run_at and not lifecycle.is_due(job, self._moves.look()):",
        "if False:",
    ),
    _plant(
        "the wall clock set forward wakes no Worker",
        "messaging.channel",
        "            self._timing = None  # The receiver that times the next message would wake too late.\n"
        "        if abs",
        "        if abs",
    ),
    # The channel and the backlog.
    _plant(
        "a delayed message wakes no Worker",
        "messaging.channel",
        "                if self._delayed[0] is item:",
        "                if False:",
    ),
    _plant(
        "a Worker passes no wake-up on",
        "messaging.channel",
        "            if self._immediate or (self._delayed and self._timing is None):",
        "            if False:",
    ),
    _plant(
        "a message wakes one receiver, perhaps another one",
        "messaging.mailbox",
        "changed.notify_all()",
        "changed.notify()",
    ),
    _plant(
        "a start reads no backlog",
        "store.backlog",
        "self._immediate, self._delayed = self._durable = START\n        #: Since",
        "self._immediate, self._delayed = self._durable = None, None\n        #: Since",
    ),
    _plant(
        "later pages of delayed jobs are forgotten",
        "store.backlog",
        "self._delayed = _mark(page[-1]) if len(page) == PAGE else None",
        "self._delayed = None",
    ),
    _plant(
        "later pages are forgotten",
        "store.backlog",
        "self._immediate = page[-1].id if len(page) == PAGE else None",
        "self._immediate = None",
    ),
    _plant(
        "a job at a mark is not sent",
        "store.backlog",
        "job.id > self._immediate",
        "job.id >= self._immediate",
    ),
    _plant(
        "a line that is emptied is not read again",
        "store.backlog",
        "        self._immediate, self._delayed = self._durable = START\n\n",
        "\n",
    ),
    # Asking and stopping.
    _plant(
        "a reply is looked at without its lock",
        "messaging.reply",
        "        with self._lock:\n            if self._outcome is not None:\n                return\n"
        "            self._blocked.append(settled)",
        "        if self._outcome is not None:\n            return\n        self._blocked.append(settled)",
    ),
    _plant(
        "what was given up is begun",
        "messaging.reply",
        "self._has_begun = not self.is_given_up",
        "self._has_begun = True",
    ),
    _plant(
        "what was begun is called not begun",
        "messaging.reply",
        "(OutcomeUnknown if self._has_begun else Unanswered)(reason)",
        "Unanswered(reason)",
    ),
    _plant(
        "a message is put behind the stop",
        "messaging.mailbox",
        "is_queued = not self._stopped.is_set()",
        "is_queued = True",
    ),
    _plant(
        "who awaits a job is left alone at a stop",
        "store.jobstore",
        "waiting = self._awaits.close() if is_end else []",
        "waiting: list[Entry] = []",
    ),
    _plant(
        "the JobStore stops before the Workers",
        "system",
        "                self.stop_workers()\n                self.store.stop()\n",
        "                self.store.stop()\n                self.stop_workers()\n",
    ),
    _plant(
        "what waits is not moved when the clock is set back",
        "store.moves",
        "            self._database.set_back(back)\n",
        "",
    ),
    _plant(
        "deleted jobs stay in the counts",
        "store.database",
        "            self.totals.add(status, -size, -1)\n",
        "            pass\n",
    ),
    _plant(
        "deleted jobs stay in the counts by type",
        "store.moves",
        "        self.changes.deleted += deleted\n",
        "",
    ),
)
