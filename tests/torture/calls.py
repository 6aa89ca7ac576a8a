"""Counts calls at which something can be half done, and does harm at one of them; in the processes of the torture only.

``install`` wraps them once, in the process that the others are forked from.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

Kind = Literal["rename", "mlflow", "sql", "duckdb", "step", "map"]
HARMED: tuple[Kind, ...] = ("rename", "mlflow", "sql", "duckdb")
"""Where harm is done; steps of a training and maps are counted, to see that none is made twice."""


@dataclass(frozen=True, kw_only=True)
class Harm:
    """Signals that a process sends itself, or its group, at its ``number``-th call of a kind."""

    kind: str
    number: int
    side: Literal["before", "after"] = "before"
    signals: tuple[signal.Signals, ...] = (signal.SIGKILL,)
    to_group: bool = False


class Calls:
    """The calls of this process since ``begin``."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self._harm: Harm | None = None
        self._lock = threading.RLock()

    def begin(self, harm: Harm | None) -> None:
        self.counts.clear()
        self._harm = harm

    def around(self, kind: Kind, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, counted."""

        @wraps(function)
        def counted(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                self.counts[kind] += 1
                number = self.counts[kind]
            self._look(kind, number, "before")
            result = function(*arguments, **named)
            self._look(kind, number, "after")
            return result

        return counted

    def _look(self, kind: Kind, number: int, side: str) -> None:
        harm = self._harm
        if harm is None or (harm.kind, harm.number, harm.side) != (kind, number, side):
            return
        self._harm = None
        for one in harm.signals:
            (os.killpg if harm.to_group else os.kill)(os.getpid(), one)


def install() -> Calls:
    """Imports what commands import, so that a fork of this process has it, and wraps what is counted."""
    import alembic.command
    import duckdb
    import matplotlib.pyplot
    import mlflow.store.tracking.sqlalchemy_store
    import torch._dynamo
    from mlflow import MlflowClient

    import ditr.captures.importing
    import ditr.checks.stages
    import ditr.cli.main
    import ditr.evaluation.evaluate
    import ditr.features.extract
    import ditr.features.store
    import ditr.model.esam
    import ditr.report.run_pictures
    import ditr.training.fit
    from ditr.features.timm_models import import_timm

    import_timm()
    del alembic, matplotlib, mlflow, torch
    calls = Calls()
    os.replace = calls.around("rename", os.replace)
    os.rename = calls.around("rename", os.rename)
    for name, method in list(vars(MlflowClient).items()):
        if callable(method) and not name.startswith("_"):
            setattr(MlflowClient, name, calls.around("mlflow", method))
    _count_statements(calls)
    honest = duckdb.connect
    duckdb.connect = calls.around("duckdb", lambda *a, **k: _Connection(honest(*a, **k), calls))  # type: ignore[assignment]
    ditr.training.fit.train_step = calls.around("step", ditr.training.fit.train_step)
    store = ditr.features.store.FeatureStore
    store.write = calls.around("map", store.write)  # type: ignore[method-assign]
    return calls


def _count_statements(calls: Calls) -> None:
    """Of SQLite, where MLflow's store is: also between those that its migrations and its transactions are made of."""
    from sqlalchemy.engine.default import DefaultDialect

    DefaultDialect.do_execute = calls.around("sql", DefaultDialect.do_execute)  # type: ignore[method-assign]
    DefaultDialect.do_commit = calls.around("sql", DefaultDialect.do_commit)  # type: ignore[method-assign]


class _Connection:
    """One of DuckDB's, whose statements are counted; its class is of C and takes no other methods."""

    def __init__(self, honest: Any, calls: Calls) -> None:
        self._honest = honest
        self.execute = calls.around("duckdb", honest.execute)
        self.close = calls.around("duckdb", honest.close)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._honest, name)

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
