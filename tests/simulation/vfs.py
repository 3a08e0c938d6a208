"""The simulated disk for SQLite: a VFS written with ctypes, in the very library that `sqlite3` uses.

So the standard module is used as it is, without a compiler or an extension: `Vfs` registers itself as the
default, and every database that is opened from then on lies on its `disk`. Methods of version 1 will do,
as the WAL needs no shared memory while the locking mode is exclusive. Locks do nothing: there is one
connection.

What is laid out here is `sqlite3_io_methods`, `sqlite3_file` and `sqlite3_vfs` of sqlite.org/c3ref.
"""

import _sqlite3
import ctypes
from collections.abc import Callable
from typing import Any, Final

from tests.simulation.disk import Broken, Disk, Full, OpenFile

OK, FULL, CANTOPEN, NOTFOUND = 0, 13, 14, 12
#: What each kind of access says if the disk has an error.
READ, SHORT_READ, WRITE, FSYNC, TRUNCATE = 266, 522, 778, 1034, 1546
CREATE: Final = 4
#: Each write of a sector or less happens as a whole (SQLITE_IOCAP_POWERSAFE_OVERWRITE).
POWERSAFE_OVERWRITE: Final = 0x1000
SECTOR_SIZE: Final = 4096

Pointer, Int, Int64 = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
Text, OutInt, OutInt64 = ctypes.c_char_p, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int64)


class IoMethods(ctypes.Structure):
    _fields_ = (
        ("version", Int),
        *((name, Pointer) for name in ("close", "read", "write", "truncate", "sync", "size")),
        *((name, Pointer) for name in ("lock", "unlock", "reserved", "control", "sector", "device")),
    )


class SqliteFile(ctypes.Structure):
    _fields_ = (("methods", ctypes.POINTER(IoMethods)), ("number", Int64))


class SqliteVfs(ctypes.Structure):
    _fields_ = (
        ("version", Int),
        ("file_size", Int),
        ("longest_path", Int),
        ("next", Pointer),
        ("name", Text),
        ("data", Pointer),
        *((name, Pointer) for name in ("open", "delete", "access", "full_path")),
        *((name, Pointer) for name in ("dl_open", "dl_error", "dl_sym", "dl_close")),
        *((name, Pointer) for name in ("random", "sleep", "time", "last_error", "time64")),
    )


OutFile = ctypes.POINTER(SqliteFile)


class Vfs:
    """SQLite's way to the disk."""

    def __init__(self, disk: Disk) -> None:
        #: Where databases that are opened from now on lie.
        self.disk = disk
        self._open: dict[int, OpenFile] = {}
        self._opened = 0
        self._kept: list[object] = []
        self._library = ctypes.CDLL(_sqlite3.__file__)
        self._library.sqlite3_randomness.argtypes = [Int, Pointer]
        self._methods = IoMethods(1, *self._io_methods())
        self._vfs = SqliteVfs(
            2, ctypes.sizeof(SqliteFile), 512, None, b"simulated", None, *self._vfs_methods()
        )
        self._library.sqlite3_initialize()
        if self._library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1) != OK:
            raise RuntimeError("SQLite does not take the simulated disk")

    def begin(self, disk: Disk) -> None:
        """Use another disk, and have SQLite ask it for the chance of a new seed."""
        self.disk = disk
        self._library.sqlite3_randomness(0, None)

    def _io_methods(self) -> list[ctypes.c_void_p]:
        return [
            self._callback(self._close, Int, OutFile),
            self._callback(self._read, Int, OutFile, Pointer, Int, Int64),
            self._callback(self._write, Int, OutFile, Pointer, Int, Int64),
            self._callback(self._truncate, Int, OutFile, Int64),
            self._callback(self._sync, Int, OutFile, Int),
            self._callback(self._size, Int, OutFile, OutInt64),
            self._callback(lambda _file, _level: OK, Int, OutFile, Int),
            self._callback(lambda _file, _level: OK, Int, OutFile, Int),
            self._callback(self._reserved, Int, OutFile, OutInt),
            self._callback(lambda _file, _code, _argument: NOTFOUND, Int, OutFile, Int, Pointer),
            self._callback(lambda _file: SECTOR_SIZE, Int, OutFile),
            self._callback(lambda _file: POWERSAFE_OVERWRITE, Int, OutFile),
        ]

    def _vfs_methods(self) -> list[ctypes.c_void_p | None]:
        return [
            self._callback(self._open_file, Int, Pointer, Text, OutFile, Int, OutInt),
            self._callback(self._delete, Int, Pointer, Text, Int),
            self._callback(self._access, Int, Pointer, Text, Int, OutInt),
            self._callback(self._full_path, Int, Pointer, Text, Int, Pointer),
            *([None] * 4),
            self._callback(self._random, Int, Pointer, Int, Pointer),
            self._callback(lambda _vfs, microseconds: microseconds, Int, Pointer, Int),
            self._callback(lambda _vfs, _out: OK, Int, Pointer, Pointer),
            self._callback(lambda _vfs, _size, _out: OK, Int, Pointer, Int, Pointer),
            self._callback(lambda _vfs, _out: OK, Int, Pointer, Pointer),
        ]

    def _callback(self, function: Callable[..., int], *types: Any) -> ctypes.c_void_p:
        callback = ctypes.CFUNCTYPE(*types)(function)
        self._kept.append(callback)
        return ctypes.cast(callback, Pointer)

    # What SQLite does with an open file.

    def _close(self, file: Any) -> int:
        self._open.pop(file.contents.number, None)
        return OK

    def _read(self, file: Any, buffer: int, size: int, offset: int) -> int:
        try:
            data = self._open[file.contents.number].read(offset, size)
        except OSError:
            return READ
        ctypes.memmove(buffer, data.ljust(size, b"\0"), size)
        return OK if len(data) == size else SHORT_READ

    def _write(self, file: Any, buffer: int, size: int, offset: int) -> int:
        data = ctypes.string_at(buffer, size)
        return _code(WRITE, lambda: self._open[file.contents.number].write(offset, data))

    def _truncate(self, file: Any, size: int) -> int:
        return _code(TRUNCATE, lambda: self._open[file.contents.number].truncate(size))

    def _sync(self, file: Any, _flags: int) -> int:
        return _code(FSYNC, self._open[file.contents.number].sync)

    def _size(self, file: Any, out: Any) -> int:
        out[0] = self._open[file.contents.number].size
        return OK

    def _reserved(self, _file: Any, out: Any) -> int:
        out[0] = 0
        return OK

    # What SQLite does with the disk.

    def _open_file(self, _vfs: int, name: bytes | None, file: Any, flags: int, out: Any) -> int:
        file.contents.methods = None
        self._opened += 1
        try:
            opened = self.disk.open(
                f"temporary-{self._opened}" if name is None else name.decode(), create=bool(flags & CREATE)
            )
        except OSError:
            return CANTOPEN
        self._open[self._opened] = opened
        file.contents.number = self._opened
        file.contents.methods = ctypes.pointer(self._methods)
        if out:
            out[0] = flags
        return OK

    def _delete(self, _vfs: int, name: bytes, _sync: int) -> int:
        self.disk.delete(name.decode())
        return OK

    def _access(self, _vfs: int, name: bytes, flags: int, out: Any) -> int:
        file = self.disk.files.get(name.decode())
        out[0] = file is not None and (flags != 0 or len(file.content) > 0)
        return OK

    def _full_path(self, _vfs: int, name: bytes, _size: int, out: int) -> int:
        ctypes.memmove(out, name + b"\0", len(name) + 1)
        return OK

    def _random(self, _vfs: int, size: int, out: int) -> int:
        ctypes.memmove(out, self.disk.chance.randbytes(size), size)
        return size


def _code(failure: int, action: Callable[[], None]) -> int:
    try:
        action()
    except Full:
        return FULL
    except Broken:
        return failure
    return OK
