"""The `os` and `fcntl` modules of the store, whose files lie on the simulated disk."""

import os
import stat
from types import ModuleType, SimpleNamespace
from typing import Final

from tests.simulation.disk import OpenFile
from tests.simulation.vfs import Vfs

#: Every file is a plain one, readable by its owner alone.
MODE: Final = stat.S_IFREG | 0o600
#: The folder of all files.
FOLDER: Final = "/"
#: The folder of the process's descriptors.
DESCRIPTORS: Final = "/dev/fd"


class Files:
    """What the store does with files besides SQLite: it looks at them, and syncs them."""

    def __init__(self, vfs: Vfs) -> None:
        self._vfs = vfs
        self._open: dict[int, OpenFile] = {}
        self._opened = 0

    def open(self, path: str, flags: int, _mode: int = 0o777) -> int:
        if flags & os.O_EXCL and path in self._vfs.disk.files:
            raise FileExistsError(17, "File exists", path)
        self._opened += 1
        self._open[self._opened] = self._vfs.disk.open(path, create=bool(flags & os.O_CREAT))
        return self._opened

    def close(self, descriptor: int) -> None:
        del self._open[descriptor]

    def fsync(self, descriptor: int) -> None:
        self._open[descriptor].sync()

    def pread(self, descriptor: int, size: int, offset: int) -> bytes:
        return self._open[descriptor].read(offset, size)

    def fstat(self, descriptor: int) -> SimpleNamespace:
        file = self._open[descriptor]
        return SimpleNamespace(st_mode=MODE, st_dev=1, st_ino=file.number, st_size=file.size)

    def stat(self, path: str) -> SimpleNamespace:
        if path == FOLDER:
            changed_at = int(self._vfs.disk.changed_at * 1e9)
            return SimpleNamespace(st_mode=stat.S_IFDIR | 0o700, st_dev=1, st_ino=0, st_mtime_ns=changed_at)
        file = self._vfs.disk.files.get(path)
        if file is None:
            raise FileNotFoundError(2, "No such file or directory", path)
        return SimpleNamespace(st_mode=MODE, st_dev=1, st_ino=file.number, st_size=len(file.content))

    def listdir(self, path: str) -> list[str]:
        assert path == DESCRIPTORS
        return [str(descriptor) for descriptor, file in self._open.items() if file.is_of_this_process]


def os_module(vfs: Vfs) -> ModuleType:
    """Return an `os` module for simulated code; what is not simulated is not in it."""
    files = Files(vfs)
    module = ModuleType("os")
    vars(module).update(
        {name: value for name, value in vars(os).items() if name.startswith(("O_", "R_", "W_"))}
    )
    same = {
        name: getattr(files, name) for name in ("open", "close", "fsync", "pread", "fstat", "stat", "listdir")
    }
    vars(module).update(
        same,
        X_OK=os.X_OK,
        path=SimpleNamespace(
            realpath=lambda path: path,
            dirname=os.path.dirname,
            isdir=lambda path: path == FOLDER,
            islink=lambda _path: False,
            samestat=lambda one, other: one.st_ino == other.st_ino,
        ),
        access=lambda _path, _right, **_: True,
        supports_effective_ids=frozenset(),
        strerror=os.strerror,
        stat_result=os.stat_result,
    )
    return module


def fcntl_module() -> ModuleType:
    """Return an `fcntl` module whose locks are always free: there is one process."""
    module = ModuleType("fcntl")
    vars(module).update(
        LOCK_SH=1, LOCK_EX=2, LOCK_NB=4, LOCK_UN=8, flock=lambda _descriptor, _operation: None
    )
    return module
