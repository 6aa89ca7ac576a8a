"""One planned run in a process of its own: what ``ditr run --jobs`` and ``--gpus`` start. Not a command for users."""

from __future__ import annotations

import sys

from ditr.cli.host import draw_pictures, leave, open_teller
from ditr.errors import DitrError, ExitCode
from ditr.progress import silent
from ditr.runner.queue import job_from
from ditr.runner.run import run_all
from ditr.runner.session import Host
from ditr.runner.stop import StopSignal
from ditr.spec.registry import Registry


def main() -> int:
    """Reads the run from standard input; exit code 0 if it finished or was interrupted, else as ``ditr run``."""
    with StopSignal() as stop, open_teller() as teller:
        try:
            planned = job_from(sys.stdin.read())
        except DitrError as error:
            _say(str(error))
            return ExitCode.MISTAKE
        host = Host(registry=Registry(), progress=silent, say=_say, stop=stop, draw=draw_pictures, teller=teller)
        (outcome,) = run_all([planned], host=host)
    if outcome.error is None:
        return ExitCode.DONE
    _say(str(outcome.error) or type(outcome.error).__name__)
    return ExitCode.MISTAKE if isinstance(outcome.error, DitrError) else ExitCode.FAILED


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    leave(main())
