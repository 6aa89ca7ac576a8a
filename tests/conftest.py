"""What every test gets: stores of its own, so that no test reads or writes what belongs to the user."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ditr.data.dataset import Dataset, open_dataset
from ditr.rooms import make_missing
from ditr.spec.registry import Registry

# Two workers on two cores: more threads would only take turns. Read by torch and OpenMP when they are first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # a thread that spins takes the core that another worker needs
# Triton's kernels run in Python: no test needs a GPU. Read when they are first imported.
os.environ.setdefault("TRITON_INTERPRET", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Commands that tests start and stop hear what they would in a terminal: a background shell and nohup start all deaf.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made data and feature maps, shared by the tests of one worker: they are keyed by content."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_stores(tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every store variable points below pytest's temporary folders; the registry stays the project's."""
    monkeypatch.setenv("DITR_CACHE", str(session_cache))
    for variable in ("DITR_RUNS", "DITR_DATA", "DITR_WEIGHTS"):
        monkeypatch.setenv(variable, str(tmp_path / variable.removeprefix("DITR_").lower()))
    for variable in ("DITR_REGISTRY", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def tiny_dataset(session_cache: Path) -> Dataset:
    """``synthrooms_tiny``, made once a session: two frames to train on, two to evaluate."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DITR_CACHE", str(session_cache))
        patch.delenv("DITR_REGISTRY", raising=False)
        make_missing("synthrooms_tiny", registry=Registry())
        return open_dataset("synthrooms_tiny", registry=Registry())


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; making it takes seconds, copying it none."""
    from mlflow import MlflowClient

    runs = tmp_path_factory.mktemp("mlflow")
    MlflowClient(f"sqlite:///{runs / 'mlflow.db'}").search_experiments()
    return runs / "mlflow.db"
