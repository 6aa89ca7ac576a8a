"""``ditr setup-engine`` and set-up take the wheel that this machine has, and build one once."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ditr.paths import builtin_dir


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """That which the wheel holds, with an empty store of wheels."""
    spec = importlib.util.spec_from_file_location("install_script", builtin_dir() / "minkowski" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("DITR_WHEELS", str(tmp_path / "wheels"))
    return module


def test_a_wheel_is_built_once_for_each_torch_and_python(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def build(target: Any, *, out: Path, jobs: int | None) -> Path:
        assert building == [target.key], "the user is told before minutes pass"
        built.append(target.key)
        (out / "engine.whl").touch()
        return out / "engine.whl"

    building: list[str] = []

    @contextmanager
    def told(what: str) -> Iterator[None]:
        building[:] = [what.split()[1]]
        yield

    monkeypatch.setattr(script.build, "build", build)
    one, other = SimpleNamespace(key="torch1"), SimpleNamespace(key="torch2")
    wheels = [script.kept_wheel(target, building=told) for target in (one, one, other, one)]
    assert built == ["torch1", "torch2"]
    assert wheels[0] == wheels[1] == wheels[3] != wheels[2]
    assert all(wheel.is_file() for wheel in wheels)
