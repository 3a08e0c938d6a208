"""Loading the real code onto the simulated machine: with its threads, its time, its files, and perhaps a bug.

What `pykka` and `actors` import as `threading` and `time` is the simulation's, and what the store imports
as `os` too: each of their modules gets an `__import__` of its own. All other modules have the real ones,
and nothing of those runs in the simulation. The modules that share data between threads without a lock for
each access get a point before every statement, where the GIL could let another thread go on.
"""

import ast
import builtins
import importlib
import importlib.abc
import importlib.machinery
import logging
import random
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, Final, NamedTuple

from tests.simulation.disk import Disk
from tests.simulation.files import fcntl_module, os_module
from tests.simulation.scheduler import Points
from tests.simulation.threads import threading_module, time_module
from tests.simulation.vfs import Vfs

#: The packages that are simulated, and the one whose files are.
SIMULATED: Final = ("actors", "pykka")
STORE: Final = "actors.store."
#: Modules that get a point before each statement.
POINTED: Final = (
    "actors.interrupts",
    "actors.messaging.channel",
    "actors.messaging.mailbox",
    "actors.messaging.reply",
)
POINT: Final = "__point__"


class Edit(NamedTuple):
    """A change of a module's text, where `old` stands exactly once."""

    module: str
    old: str
    new: str


class Unplantable(Exception):
    """An edit does not fit the code: it has to follow what was changed there."""


class Machine(NamedTuple):
    """What the real code was loaded onto."""

    vfs: Vfs
    points: Points


def load(edits: Sequence[Edit] = ()) -> Machine:
    """Import the real code with these edits, once in a process."""
    if set(SIMULATED) & set(sys.modules):
        raise RuntimeError("the real code was loaded already; the simulation needs a process of its own")
    logging.disable(logging.CRITICAL)
    machine = Machine(Vfs(Disk(random.Random(0))), Points())
    sys.meta_path.insert(0, Finder(edits, machine))
    importlib.import_module("actors.system")
    return machine


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that are simulated."""

    def __init__(self, edits: Sequence[Edit], machine: Machine) -> None:
        self._edits = edits
        self._points = machine.points
        self._all = {"threading": threading_module(), "time": time_module()}
        self._store = {**self._all, "os": os_module(machine.vfs), "fcntl": fcntl_module()}

    def find_spec(
        self, name: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] not in SIMULATED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            edits = [edit for edit in self._edits if edit.module == name]
            seen = self._store if name.startswith(STORE) else self._all
            spec.loader = Loader(spec.loader, edits, seen, self._points)
        return spec


class Loader(SourceFileLoader):
    """Loads a module that sees simulated modules, with edits or with points."""

    def __init__(
        self,
        plain: SourceFileLoader,
        edits: Sequence[Edit],
        seen: Mapping[str, ModuleType],
        points: Points,
    ) -> None:
        super().__init__(plain.name, plain.path)
        self._edits = edits
        self._seen = seen
        self._points = points

    def get_code(self, fullname: str) -> CodeType | None:
        if not self._edits and fullname not in POINTED:
            return super().get_code(fullname)
        source = self.get_data(self.path).decode()
        for edit in self._edits:
            if source.count(edit.old) != 1:
                raise Unplantable(f"{fullname} has {edit.old!r} {source.count(edit.old)} times, not once")
            source = source.replace(edit.old, edit.new)
        tree = ast.parse(source)
        if fullname in POINTED:
            tree = ast.fix_missing_locations(Pointing().visit(tree))
        return compile(tree, self.path, "exec")

    def exec_module(self, module: ModuleType) -> None:
        def imported(name: str, *details: Any) -> Any:
            return self._seen.get(name) or builtins.__import__(name, *details)

        vars(module)["__builtins__"] = {**vars(builtins), "__import__": imported}
        vars(module)[POINT] = self._points.statement
        super().exec_module(module)


class Pointing(ast.NodeTransformer):
    """Puts a point before every statement of every function."""

    def visit_FunctionDef(self, function: ast.FunctionDef) -> ast.AST:
        self.generic_visit(function)
        has_docstring = ast.get_docstring(function) is not None
        function.body = function.body[:has_docstring] + self._pointed(function.body[has_docstring:])
        return function

    def _pointed(self, block: list[ast.stmt]) -> list[ast.stmt]:
        pointed: list[ast.stmt] = []
        for inner in block:
            if not isinstance(inner, ast.FunctionDef | ast.ClassDef):
                for name in ("body", "orelse", "finalbody"):
                    if getattr(inner, name, None):
                        setattr(inner, name, self._pointed(getattr(inner, name)))
            if not isinstance(inner, ast.Nonlocal | ast.Global):
                pointed.append(ast.copy_location(_point(), inner))
            pointed.append(inner)
        return pointed


def _point() -> ast.stmt:
    return ast.Expr(ast.Call(ast.Name(POINT, ast.Load()), [], []))
