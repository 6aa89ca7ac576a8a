from __future__ import annotations

from pathlib import Path

import pytest

from ditr.data.dataset import Dataset
from tests.e2e.shell import ARMS, Shell, run_arguments


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory, session_cache: Path, tiny_dataset: Dataset) -> Shell:
    """All three arms, run by one command. Tests may run them again: each arm has its one finished run then too."""
    shell = Shell(tmp_path_factory.mktemp("e2e"), session_cache)
    ran = shell.ditr(*run_arguments(*ARMS))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return shell
