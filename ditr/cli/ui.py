"""``ditr ui``: MLflow's own UI over the runs, on this machine only."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import Annotated

import typer

from ditr.cli.host import warn
from ditr.cli.serving import end_when_told
from ditr.errors import Code, DitrError, ExitCode, in_short
from ditr.paths import runs_dir

ADDRESS = "127.0.0.1"
START_S = 120.0
"""Longest wait for the server to answer."""


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(ui)


def ui(port: Annotated[int, typer.Option(min=1, max=65535, help=f"Port on {ADDRESS}.")] = 5000) -> None:
    """Serve MLflow's UI of the runs on this machine, and print its address; Ctrl-C ends it. Where MLFLOW_TRACKING_URI
    or ditr.toml names a server, print the addresses of the runs there."""
    from ditr.record.views.mlflow_store import LocalStore, StoreError, without_password
    from ditr.record.views.mlflow_view import MlflowView

    runs = runs_dir()
    view = MlflowView(runs)
    try:
        view.catch_up()
    except StoreError:
        raise
    except DitrError as error:
        warn(f"{view.name}: {in_short(error)}")
    if not view.store.exists():
        fix = "Run an experiment first: ditr run specs/fpn_inject.yaml"
        raise DitrError("nothing is tracked yet", code=Code.RUN, where=view.name, fix=fix)
    found = view.pages()
    if not isinstance(view.store, LocalStore):
        for name, page in found.items():
            typer.echo(f"{name}  {without_password(view.store.uri)}/{page}")
        return
    _require_free(port)
    end_when_told()  # a plain kill would leave the server running without its parent
    server = _start(view.store.uri, port)
    try:
        if _answers(server, port):
            width = max(map(len, found), default=0)
            for name, page in found.items():
                typer.echo(f"{name:<{width}}  http://{ADDRESS}:{port}/{page}")
            typer.echo(f"MLflow serves {runs} on http://{ADDRESS}:{port}; Ctrl-C ends it")
        code = server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait()
        code = 0
    raise typer.Exit(ExitCode.FAILED if code else ExitCode.DONE)


def _start(store: str, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--host", ADDRESS]
    command += ["--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level warning"]
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        # Without the job runners, seven processes that only MLflow's language-model features need.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONWARNINGS": "ignore",
    }
    # Greetings go to stdout and errors to stderr.
    return subprocess.Popen(command, env=os.environ | quiet, stdout=subprocess.DEVNULL)


def _require_free(port: int) -> None:
    if _takes_connections(port):
        fix = f"End what serves there, or choose another port: ditr ui --port {port + 1 if port < 65535 else 5000}"
        raise DitrError("the port is taken", code=Code.ENVIRONMENT, where=f"{ADDRESS}:{port}", fix=fix)


def _answers(server: subprocess.Popen[bytes], port: int) -> bool:
    """Whether the server takes connections, once it does; False if it ended or took too long."""
    until = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < until:
        if _takes_connections(port):
            return True
        time.sleep(0.1)
    return False


def _takes_connections(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((ADDRESS, port)) == 0
