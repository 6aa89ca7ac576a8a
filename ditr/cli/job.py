"""One planned run in a process of its own, or in several ranks: what ``ditr run`` starts.

Not a command for users. It writes the run's folder alone; who started it tells the views.
"""

from __future__ import annotations

import sys

from ditr.cli.host import draw_pictures, follow_ranks
from ditr.errors import DitrError, ExitCode
from ditr.progress import silent
from ditr.ranks import Ranks
from ditr.record.views.teller import Teller
from ditr.runner.host import Host
from ditr.runner.job_text import job_from
from ditr.runner.join import join
from ditr.runner.run import run_all
from ditr.runner.stop import StopSignal
from ditr.spec.registry import Registry


def main() -> int:
    """Reads the run from standard input; exit code 0 if it finished or was interrupted, else as ``ditr run``."""
    try:
        with StopSignal() as stop, join() as ranks:
            if ranks.leads:
                _lead(stop, ranks)
            else:
                follow_ranks(stop, ranks)
    except Exception as error:
        _say(str(error) or type(error).__name__)
        return ExitCode.MISTAKE if isinstance(error, DitrError) else ExitCode.FAILED
    return ExitCode.DONE


def _lead(stop: StopSignal, ranks: Ranks) -> None:
    with Teller((), say=_say) as teller:
        planned = job_from(sys.stdin.read())
        host = Host(
            registry=Registry(), progress=silent, say=_say, stop=stop, draw=draw_pictures, teller=teller, ranks=ranks
        )
        (outcome,) = run_all([planned], host=host)
    if outcome.error is not None:
        raise outcome.error


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
