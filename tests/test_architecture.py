"""The rules of CONTRIBUTING.md that a reviewer would otherwise have to remember."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Container, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "ditr").rglob("*.py"))
HEAVY = {"torch", "torchvision", "timm", "mlflow", "duckdb", "MinkowskiEngine", "triton", "matplotlib", "pandas"}
LONGEST_FILE = 400
ONLY_IMPORTED_BY = {
    "MinkowskiEngine": "model/sparse/",
    "MinkowskiEngineBackend": "model/sparse/",
    "mlflow": "record/views/",
    "duckdb": "record/views/",
    "viser": "report/pages",
    "rich": "cli/",
    "typer": "cli/",
}


def test_layers_are_kept() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Not within a layer either, and not for their types."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in SOURCES}
    imports = {name: set(_modules(path, known=names)) for name, path in names.items()}
    tuple(TopologicalSorter(imports).static_order())  # raises CycleError, which names the circle


def _modules(path: Path, *, known: Container[str]) -> Iterator[str]:
    """Those of ``known`` that a file imports, or something out of them, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in known else node.module for name in found)


def test_the_command_starts_without_heavy_packages() -> None:
    code = "import sys, ditr.cli.main; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stdout.split())


def test_no_file_is_too_long() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in SOURCES}
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}


@pytest.mark.parametrize(("package", "place"), ONLY_IMPORTED_BY.items())
def test_a_package_behind_one_door_is_imported_there_only(package: str, place: str) -> None:
    door = ROOT / "ditr" / place
    importing = [path for path in SOURCES if package in set(_imported(path))]
    assert importing, f"nothing imports {package}: take it out of this test and of pyproject.toml"
    elsewhere = [str(path.relative_to(ROOT)) for path in importing if path != door and door not in path.parents]
    assert elsewhere == []


def test_every_package_that_is_imported_is_declared_and_locked() -> None:
    known = {"PIL": "pillow", "ruamel": "ruamel.yaml", "skimage": "scikit-image", "pynvml": "nvidia-ml-py"}
    from_setup = {"torch", "torchvision", "triton", "MinkowskiEngine", "MinkowskiEngineBackend"}
    imported = {name for path in SOURCES for name in _imported(path)} - set(sys.stdlib_module_names) - {"ditr"}
    lock = {
        line.partition("==")[0].lower().replace("-", "_")
        for line in (ROOT / "requirements.lock").read_text().splitlines()
    }
    wanted = {known.get(name, name).lower().replace("-", "_") for name in imported - from_setup}
    assert wanted - lock == set()


def _imported(path: Path) -> Iterator[str]:
    """Top-level names of the packages that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]
