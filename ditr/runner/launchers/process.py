"""The process of one job, and how it ended."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from ditr.errors import ExitCode
from ditr.record.folder import unwritable
from ditr.record.state import RecordState, now
from ditr.runner.job_text import job_text
from ditr.runner.launchers import Ending
from ditr.runner.plan import PlannedRun

PYTHON: tuple[str, ...] = (sys.executable,)
JOB = ("-m", "ditr.cli.job")
"""Runs the one planned run that it reads from its standard input; what follows is the user's command, which the run's
provenance names."""
RANKS = ("-m", "ditr.cli.ranks")
"""Starts so many ranks, as the next word says, that run such a job together."""
_LOG_LINES = 12
_PR_SET_PDEATHSIG = 1
"""Of Linux's prctl.h."""


def output_of(run: PlannedRun) -> Path:
    """All that its job and the libraries in it write, to be read if it dies without a word in the run's own log."""
    return run.folder.path.with_name(f".{run.folder.path.name}.job.txt")


class JobProcess:
    """Started when it is made.

    Parameters
    ----------
    environment: what its environment has beside that of this process.
    command: the user's, without the name of the program.
    ranks: so many GPUs the run is cut over.
    python: what starts Python; None is ``PYTHON``.
    dies_with_parent: whether it is asked to stop when the thread that made it is gone.
    """

    def __init__(
        self,
        run: PlannedRun,
        *,
        environment: Mapping[str, str],
        command: Sequence[str],
        ranks: int = 1,
        python: Sequence[str] | None = None,
        dies_with_parent: bool = False,
    ) -> None:
        self.run = run
        self.output = output_of(run)
        program = JOB if ranks == 1 else (*RANKS, str(ranks))
        try:
            output = self.output.open("w")
        except OSError as error:
            raise unwritable(self.output, error) from error
        with output:
            # A session of its own: the terminal's Ctrl-C reaches this process alone, which passes it on once.
            self._process = subprocess.Popen(
                (*(python or PYTHON), *program, *command),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ | environment,
                start_new_session=True,
                preexec_fn=partial(_die_with_parent, ctypes.CDLL(None)) if dies_with_parent else None,
            )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin:  # of one that died at once; its exit code says so
            self._process.stdin.write(job_text(run))

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def tell(self, number: signal.Signals) -> None:
        """Sends it, and all that it started, the signal if it is there."""
        if not self.has_ended:
            os.killpg(self._process.pid, number)

    def wait(self) -> None:
        """Until it has ended; also in a handler of a signal that came while ``has_ended`` was asked."""
        with suppress(ChildProcessError):  # it has been asked since
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)

    def ending(self, *, told: bool) -> Ending:
        """Of one that has ended; what it could not say in its state any more is said there.

        ``told``: it was asked to stop, maybe before it could hear that, or ended.
        """
        folder, code = self.run.folder, self._process.returncode
        state = folder.state()
        began = state is not None and (state.pid, state.host) == (self._process.pid, socket.gethostname())
        how = "not begun" if state is None else state.state
        died = began and how == "running"
        failure = None
        if code != 0 and not (told and how != "failed"):
            failure = self._how_it_failed(state if began and not died else None)
        if state is not None and died:
            what = failure.splitlines()[0] if failure else None
            folder.set_state(replace(state, state="failed" if failure else "interrupted", error=what, ended_at=now()))
        if began and not died:
            self.output.unlink()  # the run's own log has it all
        interrupted = failure is None and how != "finished"
        return Ending(failure=failure, mistake=code == ExitCode.MISTAKE, interrupted=interrupted)

    def _how_it_failed(self, state: RecordState | None) -> str:
        """In words, with the end of what there is to read about it; ``state`` is what the job itself left at its
        end."""
        code = self._process.returncode
        if code == ExitCode.MISTAKE and state is not None and state.error:
            return state.error
        if state is not None:
            how, log = f"failed: {state.error}" if state.error else "its tracking failed", self.run.folder.log_file
        else:
            how, log = f"its process ended with code {code}", self.output
        if code < 0:
            how = f"its process was ended by signal {-code} ({signal.strsignal(-code)})"
        if code == -signal.SIGKILL:
            how += ", as the kernel does when memory runs out"
        end = log.read_text(errors="replace").splitlines()[-_LOG_LINES:] or ["nothing"]
        return "\n    ".join([f"{how}\n  the end of {log}:", *end])


def _die_with_parent(libc: ctypes.CDLL) -> None:
    """In the new process, before its program: the kernel asks it to stop when its parent is gone."""
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGUSR2)
