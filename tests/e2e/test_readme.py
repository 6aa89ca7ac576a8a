"""Every command of the README works as it is printed, made small and with stores of its own."""

from __future__ import annotations

import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from ditr.data.dataset import Dataset
from ditr.paths import project_dir
from tests.e2e import warm
from tests.ports import free_port

pytestmark = pytest.mark.slow

BLOCK = re.compile(r"^```(?:bash|sh)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
TINY = (
    "dataset.name=synthrooms_tiny",
    "checkpoint=null",
    "schedule.epochs=1",
    "schedule.batch_size=2",
    "execution.workers=0",
    "tracking.panels=1",
)
NEEDS_DATA = "scannet200_sv/"
TARGETS = ("demo", "test")


def printed_commands(readme: str) -> list[list[str]]:
    """Words of every line that runs ditr; a line that ends in a backslash goes on in the next."""
    lines = [line.strip() for block in BLOCK.findall(readme) for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [_one_command(line[1:]) for line in words if line and line[0] in ("ditr", ".venv/bin/ditr")]


def made_small(words: Sequence[str], *, frame: str, out: Path) -> list[str]:
    """The same command on two frames, and with the files that it writes in ``out``."""
    small = [part for word in words for part in _globbed(word)]
    if small[0] == "run" and any(NEEDS_DATA in word for word in small):
        return ["validate", *(word for word in small if word.endswith(".yaml"))]
    if small[0] in ("run", "eval"):
        chosen = {word.partition("=")[0] for word in small}
        left = [override for override in TINY if override.partition("=")[0] not in chosen]
        return [*small, *(part for override in left for part in ("--set", override))]
    if small[0] in ("check", "features"):
        small += ["--set", "dataset.name=synthrooms_tiny"]
    if small[0] in ("data", "predict"):
        small = ["synthrooms_tiny" if word == "synthrooms" else word for word in small]
    small = [frame if re.fullmatch(r"scene\d{4}_\d\d_\d+", word) else word for word in small]
    for option, value in (("--scenes", "2"), ("--frames", "1")):
        small = _with_value(small, option, value)
    if small[0] == "check":
        small += ["--frames", "2"]
    name = Path(_value(small, "--out") or "").name
    return _with_value(small, "--out", str(out / name))


def test_every_command_of_the_readme_does_what_it_says(
    tmp_path: Path, session_cache: Path, tiny_dataset: Dataset
) -> None:
    readme = (project_dir() / "README.md").read_text()
    commands = printed_commands(readme)
    assert any(words[0] == "run" for words in commands), "the README shows how to run an experiment"
    stores = {"DITR_RUNS": str(tmp_path / "runs"), "DITR_CACHE": str(session_cache)}
    at = project_dir()
    for words in commands:
        small = made_small(words, frame=tiny_dataset.val.ids[0], out=tmp_path)
        if small[0] == "ui":
            open_ui(os.environ | stores)
        elif small[0] == "init" and not small[1].startswith("-"):  # and from there on in that project
            succeeds(small, os.environ | stores, at=tmp_path)
            at = tmp_path / small[1]
        else:
            succeeds(small, os.environ | stores, at=at)
    (code,) = PYTHON.findall(readme)
    code = re.sub(r"scene\d{4}_\d\d_\d+", tiny_dataset.val.ids[0], code.replace('"synthrooms"', '"synthrooms_tiny"'))
    subprocess.run([sys.executable, "-c", code], cwd=project_dir(), env=os.environ | stores, check=True)


def succeeds(words: Sequence[str], environment: dict[str, str], *, at: Path) -> None:
    environment = environment | {"PYTHONPATH": str(project_dir())}
    done = warm.run(tuple(words), at=at, environment=environment)
    assert done.returncode == 0, f"ditr {shlex.join(words)}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    written = _value(words, "--out")
    assert written is None or Path(written).exists()


@pytest.mark.parametrize("target", TARGETS)
def test_the_make_targets_of_the_readme_exist(target: str) -> None:
    assert f"make {target}" in (project_dir() / "README.md").read_text()
    make = shutil.which("make")
    assert make is not None
    planned = subprocess.run([make, "-n", target], cwd=project_dir(), capture_output=True, text=True, check=True)
    assert planned.stdout.strip()


def ditr(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ditr.cli.main", *arguments]


def open_ui(environment: dict[str, str]) -> None:
    """Starts the UI on a free port, fetches its page, and ends it as Ctrl-C does."""
    port = free_port()
    server = subprocess.Popen(
        ditr("ui", "--port", str(port)),
        cwd=project_dir(),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert server.stdout is not None
    said = ""
    try:
        while "Ctrl-C ends it" not in said and (line := server.stdout.readline()):
            said += line
        page = fetch(f"http://127.0.0.1:{port}/", server)
    finally:
        os.killpg(server.pid, 2)
        said += server.communicate(timeout=30)[0]
    assert b"<title>MLflow</title>" in page
    assert f"http://127.0.0.1:{port}" in said
    assert server.returncode == 0, said


def fetch(address: str, server: subprocess.Popen[str]) -> bytes:
    for _ in range(600):
        assert server.poll() is None, "the UI ended"
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                body: bytes = answer.read()
                return body
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError("the UI did not answer within a minute")


def _one_command(words: Sequence[str]) -> list[str]:
    """Without what a shell would do with its output."""
    ends = [place for place, word in enumerate(words) if word in (">", "|", "&&", "&")]
    return list(words[: min(ends, default=len(words))])


def _globbed(word: str) -> list[str]:
    if not glob.has_magic(word) or " " in word:
        return [word]
    return sorted(glob.glob(word, root_dir=project_dir())) or [word]


def _value(words: Sequence[str], option: str) -> str | None:
    return words[words.index(option) + 1] if option in words else None


def _with_value(words: Sequence[str], option: str, value: str) -> list[str]:
    """With another value, where the option is given."""
    return [value if before == option else word for before, word in zip(("", *words), words, strict=False)]
