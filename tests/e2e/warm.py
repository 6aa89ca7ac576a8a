"""Commands of ditr as forks of one process that has imported what they need: a command starts in no time.

A fork is what ``python -m ditr.cli.main`` would be, a process of its own, but for the imports. What these do, and what
Ctrl-C does, is tested with real starts.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

LIMIT_S = 300
LATE = ("matplotlib.pyplot", "mlflow.store.tracking.sqlalchemy_store", "torch._dynamo")
"""Heavy modules that are imported while a command works."""


def run(words: tuple[str, ...], *, at: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What came of ``ditr WORDS``, started in the folder ``at``."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        asked = {"words": words, "at": str(at), "environment": dict(environment), "out": str(out), "err": str(err)}
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(words, code, out.read_text(), err.read_text())


@functools.cache
def _server() -> subprocess.Popen[str]:
    """One a test process; it ends with it, when its input does."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.warm"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.communicate)
    return server


def serve() -> None:
    """Forks a command a line of its input and tells its exit code."""
    import ditr
    from ditr.features.timm_models import import_timm

    import_timm()
    for name in LATE:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(ditr.__path__, "ditr."):
        if module.name not in ("ditr.__main__", "ditr.cli.main"):  # these are run
            importlib.import_module(module.name)
    for line in sys.stdin:
        asked = json.loads(line)
        if (pid := os.fork()) == 0:
            os._exit(_be(**asked))
        print(_exit_code(pid), flush=True)


def _exit_code(pid: int) -> int:
    began = time.monotonic()
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() - began > LIMIT_S:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _be(*, words: list[str], at: str, environment: dict[str, str], out: str, err: str) -> int:
    """Is the command, and returns its exit code."""
    os.chdir(at)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["ditr", *words]
    try:
        runpy.run_module("ditr.cli.main", run_name="__main__", alter_sys=True)
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    serve()
