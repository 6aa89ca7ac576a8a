"""Several ranks on this machine, forks of the test's own process, which gloo connects."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ditr.model.rank_group import rank_group
from ditr.ranks import ALONE, Ranks


def on_ranks(count: int, work: Callable[[Ranks], Any]) -> list[Any]:
    """What ``work`` returns on each rank, in their order; alone it is called here.

    Raises
    ------
    AssertionError: a rank raised something, which was printed, or died.
    """
    if count == 1:
        return [work(ALONE)]
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.flush()
        children = [_fork(index, count, work, Path(folder)) for index in range(count)]
        codes = [os.waitpid(child, 0)[1] for child in children]
        assert codes == [0] * count, f"ranks ended with {codes}"
        return [pickle.loads((Path(folder) / str(index)).read_bytes()) for index in range(count)]


def _fork(index: int, count: int, work: Callable[[Ranks], Any], folder: Path) -> int:
    if child := os.fork():
        return child
    code = 1
    try:
        with rank_group(f"file://{folder}/meet", rank=index, count=count) as ranks:
            (folder / str(index)).write_bytes(pickle.dumps(work(ranks)))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
