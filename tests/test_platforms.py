"""Where ditr runs, and what is said elsewhere; tests/tools/test_setup_script.py has what set-up says."""

from __future__ import annotations

import importlib
import sys

import pytest

import ditr.cli
from ditr.platforms import unsupported, untried


def test_the_command_line_tells_windows_before_it_imports_what_that_has_not_got(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit, match=r"ditr runs on Linux \(x86-64\): on Windows use WSL 2"):
        importlib.reload(ditr.cli)


def test_linux_on_another_processor_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert unsupported() is None
    assert untried() == "nobody has tried ditr on aarch64; it is made on x86-64"
