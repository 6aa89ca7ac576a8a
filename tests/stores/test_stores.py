"""Stores that fail: one clear message, exit code 2, nothing lost, and the same command gives the same numbers later.

The cheap faults of the table; ``make stores`` tries all, in every phase.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ditr.data.dataset import Dataset
from ditr.errors import DitrError
from ditr.files import replacing
from ditr.machine_errors import MachineError
from ditr.paths import cache_dir, project_dir, runs_dir
from ditr.progress import silent
from ditr.record.views.teller import Teller
from ditr.runner.host import Host
from ditr.runner.plan import plan
from ditr.runner.run import run_all
from ditr.runner.session import Session
from ditr.runner.stop import StopSignal
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry
from tests.stores.phases import PHASES, Stores
from tests.stores.sandbox import grow_disk, mount_disk, sandboxed
from tests.stores.trials import (
    STRANGER,
    on_a_full_disk,
    on_a_read_only_disk,
    on_anothers_folder,
    undisturbed,
    with_its_folder_removed,
)

LAYOUTS = Path(__file__).parents[1] / "record/layouts"
"""Records as they are committed."""
CHEAP = ("import", "query --out", "query --out, parquet")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Dataset, session_cache: Path) -> Stores:
    """Stores with the made data set."""
    stores = Stores(tmp_path_factory.mktemp("given"))
    (stores.root / "weights").mkdir()
    shutil.copytree(LAYOUTS / "1", stores.at("runs"))
    stores.at("cache").mkdir()
    (stores.at("cache") / "datasets").symlink_to(session_cache / "datasets")
    return stores


@pytest.fixture(autouse=True)
def may_mount() -> None:
    try:
        sandboxed(lambda: None)
    except PermissionError as error:
        pytest.skip(f"nobody can mount here: {error}")


@pytest.mark.parametrize("name", CHEAP)
def test_a_full_disk_is_one_message_and_the_same_command_goes_on(name: str, given: Stores, tmp_path: Path) -> None:
    phase = PHASES[name]
    whole = undisturbed(phase, given, tmp_path / "whole")
    assert on_a_full_disk(phase, given, tmp_path / "full", whole=whole, share=0.5) == "refused, then the same numbers"


def test_a_run_on_a_full_disk_says_what_it_needs_and_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its work is to save a state of 2 MB; its record, the log and the views are on that disk too."""
    saved = bytes(2_000_000)

    def save(session: Session) -> None:
        with replacing(session.planned.folder.training_state) as beside:
            beside.write_bytes(saved)

    def work() -> tuple[DitrError | None, list[str]]:
        mount_disk(tmp_path / "runs", size=1_000_000)
        planned = plan([spec], registry=registry, runs=tmp_path / "runs", force=False)
        full, other = run_all(planned, host=host)
        assert isinstance(full.error, MachineError)
        assert full.error.is_full
        assert isinstance(other.error, MachineError), "the next run of the plan is told too"
        left = [path.name for path in (tmp_path / "runs").rglob("*.part")]
        grow_disk(tmp_path / "runs", size=10_000_000)
        again = run_all(plan([spec], registry=registry, runs=tmp_path / "runs", force=False), host=host)
        assert [run.state.state for run in again if run.state] == ["finished", "finished"]
        return full.error, left

    monkeypatch.setattr(Session, "work", save)
    registry = Registry()
    spec = load_spec(project_dir() / "specs/baseline.yaml", registry=registry, overrides=["seeds=[0, 1]"])
    stop, teller = StopSignal(), Teller((), say=print)
    host = Host(registry=registry, progress=silent, say=print, stop=stop, draw=lambda *_: None, teller=teller)
    error, left = sandboxed(work)
    assert left == []
    assert str(error).count("bytes") == 1
    numbers = [int(text.replace(",", "")) for text in re.findall(r"[\d,]{5,}", error.what)]
    assert len(numbers) == 2
    assert max(numbers) < len(saved), "so much was written, and so much was free"


Fault = Callable[..., str]


@pytest.mark.parametrize("fault", [on_a_read_only_disk, on_anothers_folder])
def test_a_folder_that_cannot_be_written_is_one_message(fault: Fault, given: Stores, tmp_path: Path) -> None:
    phase = PHASES["query --out"]
    whole = undisturbed(phase, given, tmp_path / "whole")
    assert fault(phase, given, tmp_path / "again", whole=whole) == "refused, then the same numbers"


def test_a_folder_that_is_removed_midway_is_one_message(given: Stores, tmp_path: Path) -> None:
    phase = PHASES["import"]
    whole = undisturbed(phase, given, tmp_path / "whole")
    came = with_its_folder_removed(phase, given, tmp_path / "again", whole=whole, at=2)
    assert came == "refused, then the same numbers"


def test_a_user_without_a_home_is_told_what_to_name() -> None:
    """As in a container that runs under a number which no system knows."""

    def work() -> list[str]:
        os.environ.pop("HOME")
        for name in ("DITR_RUNS", "DITR_CACHE", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
            os.environ.pop(name, None)
        os.chdir("/")
        os.setuid(STRANGER)
        said = []
        for folder in (runs_dir, cache_dir):
            with pytest.raises(DitrError) as error:
                folder()
            said.append(error.value.fix.split()[-1])
        return said

    if os.getuid() != 0:
        pytest.skip("only root can become a user that is not known")
    assert sandboxed(work) == ["DITR_RUNS", "DITR_CACHE"]
