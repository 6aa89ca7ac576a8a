"""Commands of ditr as forks of this process, which has imported what they need: one starts in milliseconds.

A fork is the process of the user's command: a session of its own, its output in a file, its exit code.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.torture.calls import Calls, Harm

LIMIT_S = 120.0
"""No command of the torture's small project takes longer, unless it hangs."""
_ASKING = {signal.SIGINT, signal.SIGTERM}
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    """Negative: by this signal."""
    said: str
    """Both outputs."""
    counts: dict[str, int]
    """Calls by kind; none of a process that was killed."""
    seconds: float
    left: tuple[str, ...]
    """Command lines of processes of it that were still there seconds later."""


class Command:
    """A command under way."""

    def __init__(
        self, arguments: Sequence[str], *, at: Path, out: Path, calls: Calls, harm: Harm | None = None, cores: int = 1
    ) -> None:
        self._out, self._counts = out, out.with_suffix(".json")
        self._counts.unlink(missing_ok=True)
        self._began = time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, _ASKING)  # until it is the command: what precedes is the torture's
        self.pid = os.fork()
        if self.pid > 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKING)
        else:
            _become(arguments, at=at, out=out, counts=self._counts, calls=calls, harm=harm, cores=cores)

    def send(self, number: signal.Signals, *, to_group: bool = False) -> None:
        """Nothing to one that has ended."""
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            (os.killpg if to_group else os.kill)(self.pid, number)

    def end(self, *, patience_s: float = 3.0) -> Ended:
        """Waits for its end; one that hangs is killed, and its exit code says so."""
        deadline = self._began + LIMIT_S
        while True:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                break
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGABRT)
            time.sleep(0.005)
        seconds = time.monotonic() - self._began
        left = _left(self.pid, patience_s=patience_s)
        counts = json.loads(self._counts.read_text()) if self._counts.exists() else {}
        said = self._out.read_text(errors="replace") if self._out.exists() else ""
        return Ended(code=os.waitstatus_to_exitcode(status), said=said, counts=counts, seconds=seconds, left=left)


def in_fork(work: Callable[[], _T]) -> _T:
    """What ``work`` returns, done in a fork, so that this process never has a thread or an open database."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            answer: Any = (True, work())
        except BaseException:
            answer = (False, traceback.format_exc())
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        content = pipe.read()
    os.waitpid(pid, 0)
    done, answer = pickle.loads(content)
    if not done:
        raise RuntimeError(answer)
    return answer  # type: ignore[no-any-return]


def _become(
    arguments: Sequence[str], *, at: Path, out: Path, counts: Path, calls: Calls, harm: Harm | None, cores: int
) -> None:
    """The command; never returns."""
    code = 99
    try:
        os.setsid()
        os.chdir(at)
        for name in [name for name in os.environ if name.startswith("DITR_")]:
            del os.environ[name]  # all of the project is in its folder
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
        output = os.open(out, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = ["ditr", *arguments]
        from ditr.cli.main import main

        calls.begin(harm)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKING)
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        counts.write_text(json.dumps(calls.counts))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _left(session: int, *, patience_s: float) -> tuple[str, ...]:
    deadline = time.monotonic() + patience_s
    while (found := processes_of(session)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return tuple(found.values())


def wait_for_those_at(folder: Path) -> None:
    """Until no process works in the folder: jobs of a killed parent go on to their end."""
    deadline = time.monotonic() + LIMIT_S
    while any(_works_at(process, folder) for process in Path("/proc").iterdir() if process.name.isdigit()):
        assert time.monotonic() < deadline, f"a process is still at work in {folder}"
        time.sleep(0.05)


def _works_at(process: Path, folder: Path) -> bool:
    try:
        return (process / "cwd").readlink() == folder.resolve()
    except OSError:
        return False


def processes_of(session: int) -> dict[int, str]:
    """Of a session, by number, the command lines; those that only wait to be reaped do not count."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            state, _, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")[:200]
        except (OSError, ValueError):
            continue
    return found
