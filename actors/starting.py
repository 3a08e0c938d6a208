"""Starting a system: what it needs is made first, and undone in reverse if a later step fails.

A program that ends without stopping its system is stopped here, by `_at_the_end`. If only the main thread was
left, that is early: before executors refuse work, so that what runs can still end well. Else it is after the
last of the program's own threads, which may have jobs to submit.
"""

import atexit
import contextlib
import threading
import weakref
from collections.abc import Callable, Mapping

from actors.errors import HandlerError, SettingError
from actors.handlers import Function, Handlers, simulated
from actors.loading import load_factory, load_handlers
from actors.settings import IN_MEMORY, Settings
from actors.store import Ownership
from actors.system import System
from actors.work import Pool


def start(
    settings: Settings | None = None,
    handlers: Mapping[str, Function] | None = None,
    *,
    ownership: Ownership | None = None,
    lost: Callable[[], None] = lambda: None,
) -> System:
    """Start the actors, with these handlers or those that the settings name.

    Raises StorageFailed if the database cannot be used, as when another process does; a caller can have
    waited for that, and then passes its `ownership`. Raises HandlerError if a handler or the executor
    cannot be used, SettingError for settings that do not go together, and StartFailed if the system has no
    thread left. `lost` is called if the JobStore ends by itself; the only remedy then is to start again.
    """
    settings = Settings() if settings is None else settings
    if not isinstance(settings, Settings):
        raise SettingError(f"settings is {settings!r}; it must be a Settings, such as Settings(workers=4)")
    with contextlib.ExitStack() as undo:
        if ownership is not None:
            undo.callback(ownership.release)
        known = _handlers(settings, handlers)
        owned = ownership or own(settings.database, wait=False)
        if owned is not None:
            undo.callback(owned.release)
        pool = None if settings.executor is None else _pool(settings.executor)
        if pool is not None:
            undo.callback(pool.stop)
        system = System(settings, known, pool, owned, lost)
        _at_the_end(system)
        undo.pop_all()
        return system


def _at_the_end(system: System) -> None:
    """Stop the system when the program ends, if it is still there."""
    reference = weakref.ref(system)

    def stop() -> None:
        if alive := reference():
            alive.stop()

    def stop_early() -> None:
        if all(thread.daemon or thread is threading.main_thread() for thread in threading.enumerate()):
            stop()

    atexit.register(stop)
    threading._register_atexit(stop_early)  # type: ignore[attr-defined]  # noqa: SLF001 - no public one is early


def load(settings: Settings) -> None:
    """Import what the settings name, ahead of a start. Raises HandlerError if that cannot be used."""
    if settings.handlers is not None:
        load_handlers(settings.handlers, on_executor=settings.executor is not None)
    if settings.executor is not None:
        load_factory(settings.executor)


def own(database: str, *, wait: bool) -> Ownership | None:
    """Take the lock of a database file, or wait for it; one in memory has and needs none."""
    return None if database == IN_MEMORY else Ownership(database, wait=wait)


def _handlers(settings: Settings, given: Mapping[str, Function] | None) -> Handlers:
    on_executor = settings.executor is not None
    if given is not None:
        if not isinstance(given, Mapping):
            raise HandlerError(f"handlers is {given!r}; it must be a mapping of job types to functions")
        return Handlers(given, on_executor=on_executor)
    if settings.handlers is not None:
        return load_handlers(settings.handlers, on_executor=on_executor)
    return simulated(settings.simulation())


def _pool(place: str) -> Pool:
    factory = load_factory(place)
    try:
        return Pool(factory)
    except (Exception, SystemExit) as error:
        raise HandlerError(f"GOFER_EXECUTOR is {place!r}; it failed to make one: {error!r}") from error
