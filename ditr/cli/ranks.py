"""One job on several ranks of this machine, through torch's own launcher: what ``ditr run`` starts for several GPUs.

``python -m ditr.cli.ranks COUNT [the user's command]``, with the job on standard input, for the rank that leads.
Users have torchrun.
"""

from __future__ import annotations

import os
import sys
from uuid import uuid4

from ditr.errors import ExitCode
from ditr.runner.launchers.process import JOB
from ditr.runner.stop import heard_signals

PATIENCE_S = 120
"""Between a stop and the end of ranks that do not save and leave meanwhile."""


def main() -> int:
    """Exit code 0 if the ranks finished or were stopped, else that of the one that failed, 1 for one that died."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    count = int(sys.argv[1])
    os.environ["OMP_NUM_THREADS"] = str(max(1, int(os.environ.get("OMP_NUM_THREADS", "1")) // count))
    os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(PATIENCE_S)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        signals_to_handle=",".join(number.name for number in heard_signals()),
    )
    try:
        elastic_launch(config, sys.executable)(*JOB, *sys.argv[2:])
    except SignalException:
        return ExitCode.DONE  # each rank saved what it had: the record says how far it got
    except ChildFailedError as error:
        print(error, file=sys.stderr)
        codes = [failure.exitcode for failure in error.failures.values()]
        return ExitCode.MISTAKE if ExitCode.MISTAKE in codes else ExitCode.FAILED
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
