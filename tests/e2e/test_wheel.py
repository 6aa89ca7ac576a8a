"""ditr installed from its wheel, used from an empty folder: nothing of the checkout is there, and nothing is written
beside the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from ditr.paths import project_dir
from tests.e2e.shell import SMALL, options

pytestmark = pytest.mark.slow

OF_THE_BUILD = ("ditr", "registry", "specs", "tools/minkowski", "pyproject.toml")


@dataclass(frozen=True)
class Installed:
    """ditr in an environment of its own, beside the packages that it needs."""

    venv: Path
    home: Path
    """An empty home: user folders are made below it."""
    cache: Path

    def ditr(self, *arguments: str, at: Path, code: int = 0) -> str:
        own = {key: value for key, value in os.environ.items() if not key.startswith(("DITR_", "PYTHON", "XDG_"))}
        done = subprocess.run(
            [str(self.venv / "bin" / "ditr"), *arguments],
            cwd=at,
            env=own | {"HOME": str(self.home), "DITR_CACHE": str(self.cache)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def files(self) -> set[Path]:
        """Of the package."""
        package = next(self.venv.glob("lib/python*/site-packages/ditr"))
        return {path for path in package.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Installed:
    """From a wheel that is built here, as a release is."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in OF_THE_BUILD:
        place, copied = project_dir() / name, source / name
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(place, copied, symlinks=True) if place.is_dir() else shutil.copy(place, copied)
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)]
    subprocess.run(build, check=True)
    shutil.rmtree(source)
    venv.create(folder / "venv", with_pip=False)
    (wheel,) = folder.glob("*.whl")
    python = str(folder / "venv" / "bin" / "python")
    subprocess.run([*pip, "--python", python, "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True)
    packages = next((folder / "venv").glob("lib/python*/site-packages"))
    # As a line of a .pth file: its packages can be imported, its own .pth files (the checkout's) are not read.
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (folder / "home").mkdir()
    return Installed(venv=folder / "venv", home=folder / "home", cache=session_cache)


def test_from_an_empty_folder_to_results(installed: Installed, tmp_path: Path) -> None:
    before = installed.files()
    installed.ditr("init", "rooms", at=tmp_path)
    project = tmp_path / "rooms"
    small = options(tuple(one for one in SMALL if not one.startswith("checkpoint")))
    said = installed.ditr("run", "baseline", *small, at=project / "specs")
    assert "finished" in said
    (record,) = (project / "runs").glob("baseline-s0-*")
    assert (record / "result.json").is_file()
    assert "baseline" in installed.ditr("query", "select variant, ap50 from results", at=project / "registry")
    assert installed.files() == before, "nothing may be written beside the package"


def test_outside_a_project_the_users_folders_are_used(installed: Installed, tmp_path: Path) -> None:
    said = installed.ditr("doctor", at=tmp_path)
    assert "ditr init" in said
    assert str(installed.home / ".local" / "share" / "ditr" / "runs") in said
    assert str(project_dir()) not in said.replace(str(installed.venv), "")
    assert "ok, name fpn_inject" in installed.ditr("validate", "fpn_inject", at=tmp_path)
