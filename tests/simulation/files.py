"""The `os` module of the store, whose files lie on the simulated disk."""

import os
from types import ModuleType, SimpleNamespace

from tests.simulation.disk import OpenFile
from tests.simulation.vfs import Vfs


class Descriptors:
    """Files by descriptor, as far as the store uses them next to SQLite."""

    def __init__(self, vfs: Vfs) -> None:
        self._vfs = vfs
        self._open: dict[int, OpenFile] = {}
        self._opened = 0

    def open(self, path: str, flags: int, _mode: int = 0o777) -> int:
        self._opened += 1
        self._open[self._opened] = self._vfs.disk.open(path, create=bool(flags & os.O_CREAT))
        return self._opened

    def close(self, descriptor: int) -> None:
        del self._open[descriptor]

    def fsync(self, descriptor: int) -> None:
        self._open[descriptor].sync()


def os_module(vfs: Vfs) -> ModuleType:
    """Return an `os` module for simulated code; what is not simulated is not in it."""
    descriptors = Descriptors(vfs)
    module = ModuleType("os")
    vars(module).update({name: value for name, value in vars(os).items() if name.startswith("O_")})
    vars(module).update(
        open=descriptors.open,
        close=descriptors.close,
        fsync=descriptors.fsync,
        path=SimpleNamespace(realpath=lambda path: path),
    )
    return module
