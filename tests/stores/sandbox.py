"""A process of its own with mounts of its own: disks that fill up, folders that are read-only, other users.

All of it is gone with the process.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ditr.cli.main import main

T = TypeVar("T")
LIMIT_S = 240
"""Longer than this nothing in a sandbox may take."""
_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
_CAPABILITY_VERSION = 0x20080522
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Said:
    """What came of a command."""

    code: int
    """Of its end; below zero the signal that ended it."""
    out: str
    err: str

    def __repr__(self) -> str:
        return f"exit code {self.code}, and at the end\n{self.out[-600:]}\n{self.err[-1500:]}"


def sandboxed(work: Callable[[], T]) -> T:
    """What ``work`` returns in a fork of this process that may mount; an assertion that fails there fails here.

    Raises
    ------
    PermissionError: this machine lets nobody mount, not even in a user namespace.
    """
    return _forked(lambda: (_enter(), work())[1])


def ditr(*arguments: str, folder: Path, prepare: Callable[[], object] = lambda: None) -> Said:
    """Calls the command in a fork, which has all that it imports already; what it says lies in ``folder`` meanwhile.

    Parameters
    ----------
    prepare: is called in the fork before the command.
    """
    out, err = folder / "said.out", folder / "said.err"
    child = os.fork()
    if child == 0:
        _become_command(arguments, out=out, err=err, prepare=prepare)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Said(code, out.read_text(), err.read_text())


def mount_disk(folder: Path, *, size: int) -> None:
    """A disk of so many bytes, empty."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount(b"none", folder, b"tmpfs", 0, f"size={size}".encode())


def grow_disk(folder: Path, *, size: int) -> None:
    """Gives a mounted disk another size, not below what lies there."""
    _mount(b"none", folder, b"tmpfs", _REMOUNT, f"size={size}".encode())


def mount_read_only(folder: Path) -> None:
    """The folder as it is, but nobody can write there, not even root."""
    _mount(os.fsencode(folder), folder, b"none", _BIND, b"")
    _mount(b"none", folder, b"none", _BIND | _REMOUNT | _READ_ONLY, b"")


def unmount(folder: Path) -> None:
    """The folder as it was before."""
    _check(_LIBC.umount2(os.fsencode(folder), 0), folder)


def obey_permissions() -> None:
    """From now on permission bits bind this process, as if it were not root."""
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    _check(_LIBC.capset(header, struct.pack("6I", 0, 0, 0, 0, 0, 0)), Path("/"))


def warm_up() -> None:
    """Imports what commands import, so that a fork has it; no thread may be started by it."""
    import duckdb  # noqa: F401
    import mlflow  # noqa: F401

    import ditr.evaluation.evaluate
    import ditr.model.esam
    import ditr.model.sparse.minkowski
    import ditr.report.run_pictures
    import ditr.training.fit  # noqa: F401
    from ditr.features.timm_models import import_timm

    import_timm()


def _enter() -> None:
    user, group = os.getuid(), os.getgid()
    flags = _NEW_MOUNTS if user == 0 else _NEW_MOUNTS | _NEW_USER
    _check(_LIBC.unshare(flags), Path("/"))
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount(b"none", Path("/"), b"none", _RECURSIVE | _PRIVATE, b"")


def _mount(source: bytes, folder: Path, kind: bytes, flags: int, options: bytes) -> None:
    _check(_LIBC.mount(source, os.fsencode(folder), kind, ctypes.c_ulong(flags), options), folder)


def _check(answer: int, folder: Path) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(folder))


def _forked(work: Callable[[], T]) -> T:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(work, writing, reading)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert answer, f"the sandbox ended with code {code}"
    worked, found = pickle.loads(answer)
    if worked:
        return found  # type: ignore[no-any-return]
    raise found


def _answer(work: Callable[[], object], writing: int, reading: int) -> None:
    os.close(reading)
    signal.alarm(LIMIT_S)
    try:
        answer: tuple[bool, object] = True, work()
    except (AssertionError, OSError) as error:
        answer = False, error
    except BaseException:
        answer = False, AssertionError(traceback.format_exc())
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(pickle.dumps(answer))
    os._exit(0)


def _become_command(arguments: tuple[str, ...], *, out: Path, err: Path, prepare: Callable[[], object]) -> None:
    code = 1
    try:
        signal.alarm(LIMIT_S)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core: no worker processes, which would start anew
        for stream, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        prepare()
        sys.argv = ["ditr", *arguments]
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
