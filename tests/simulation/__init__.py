"""The real actors on one thread: a seed decides who runs, what fails, and when the power is cut.

`python -m tests.simulation --seeds 1000` looks for a seed that breaks a rule; `--seed 882 --trace` shows
what happened in one. Read in this order: scheduler.py, clock.py and threads.py (what replaces threads and
time), disk.py and vfs.py (what replaces the disk), loading.py and production.py (how the real code is
loaded, and all that is known of its insides), faults.py (what a seed turns on), book.py, clients.py and
checks.py (what happens and what must hold), lives.py (one seed from its first start to its last stop),
plants.py (bugs that must be found), and last shrink.py, runner.py and __main__.py.
"""
