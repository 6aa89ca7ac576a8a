"""What of a checkout with changes lands in a record: the code that ran, and nothing else of its owner's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ditr.record import checkout
from ditr.record.checkout import dirty_patch, git_state, withheld

KEY = "AKIA" + "IOSFODNN7EXAMPLE"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "checkout"
    (folder / "ditr").mkdir(parents=True)
    (folder / "specs").mkdir()
    monkeypatch.setattr(checkout, "_CHECKOUT", folder)
    git(folder, "init", "-q")
    (folder / "ditr" / "a.py").write_text("one\n")
    (folder / ".gitignore").write_text("runs/\n")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "first")
    return folder


def test_a_clean_checkout_has_no_patch(repository: Path) -> None:
    (repository / "runs").mkdir()
    (repository / "runs" / "log.txt").write_text("ignored")
    assert git_state() == {"commit": git(repository, "rev-parse", "HEAD").strip(), "dirty": False}
    assert dirty_patch() == ""


def test_commit_and_patch_give_back_the_code_that_ran(repository: Path, tmp_path: Path) -> None:
    git(repository, "config", "diff.noprefix", "true")
    git(repository, "config", "color.ui", "always")
    (repository / "ditr" / "a.py").write_text("two\n")
    (repository / "ditr" / "new.py").write_text("x = 1\n")
    (repository / "specs" / "new ä.yaml").write_text("name: new\n")
    (repository / "notes.txt").write_text("my own")
    state = git_state()
    assert state is not None
    assert state["dirty"] is True
    again = tmp_path / "again"
    git(tmp_path, "clone", "-q", str(repository), str(again))
    (tmp_path / "dirty.patch").write_text(dirty_patch())
    git(again, "apply", str(tmp_path / "dirty.patch"))
    assert (again / "ditr" / "a.py").read_text() == "two\n"
    assert (again / "ditr" / "new.py").read_text() == "x = 1\n"
    assert (again / "specs" / "new ä.yaml").read_text() == "name: new\n"
    assert not (again / "notes.txt").exists()
    assert withheld(dirty_patch()) == ()


PRIVATE = "what only its owner is to read"


@pytest.mark.parametrize(
    "name", [".env", "notes.md", "id_rsa", "data.json", "ditr/.env", "ditr/.idea/x.json", "specs/key.pem", "ditrs/x.py"]
)
def test_other_new_files_are_named_and_not_copied(repository: Path, name: str) -> None:
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).write_text(PRIVATE)
    patch = dirty_patch()
    assert PRIVATE not in patch
    digest = subprocess.run(["sha256sum", repository / name], capture_output=True, text=True, check=True).stdout[:64]
    assert patch == f"# untracked, not copied: {name}, {len(PRIVATE)} bytes, sha256 {digest}\n"


@pytest.mark.parametrize("name", ["ditr/a.py", "ditr/new.py", "specs/new.yaml"])
def test_a_file_with_a_secret_is_withheld_and_told(repository: Path, name: str) -> None:
    (repository / name).write_text(f"x = 1\nkey = '{KEY}'\n")
    (repository / "ditr" / "fine.py").write_text("x = 1\n")
    patch = dirty_patch()
    assert KEY not in patch
    assert "+x = 1" in patch, "of the file without one"
    (line,) = withheld(patch)
    assert line.startswith("a key of AWS, line ")
    assert f"{name}, " in line


def test_a_secret_that_was_taken_out_is_not_in_the_patch_either(repository: Path) -> None:
    (repository / "ditr" / "a.py").write_text(f"key = '{KEY}'\n")
    git(repository, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-am", "oops")
    (repository / "ditr" / "a.py").write_text("key = None\n")
    assert KEY not in dirty_patch()
    (repository / "ditr" / "a.py").unlink()
    assert KEY not in dirty_patch()
    assert len(withheld(dirty_patch())) == 1


def test_what_is_large_or_many_or_oddly_named_keeps_no_run_waiting(repository: Path) -> None:
    (repository / "ditr" / "big.json").write_bytes(b"0" * 1_000_001)
    with (repository / "data.bin").open("wb") as file:
        file.truncate(2**36)  # a sparse file of 64 GiB
    (repository / "a\ndiff --git a b").write_text("x")
    (repository / "hidden").write_text("x")
    (repository / "hidden").chmod(0)
    for number in range(1100):
        (repository / f"n{number:04d}").touch()
    patch = dirty_patch()
    assert "withheld, too large for this patch: ditr/big.json, 1000001 bytes, sha256" in patch
    assert f"# untracked, not copied: data.bin, {2**36} bytes\n" in patch
    assert "more untracked files" in patch
    assert all(line.startswith("# ") for line in patch.splitlines())
    assert len(patch.splitlines()) < 1010


def test_outside_a_checkout_there_is_no_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "_CHECKOUT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state() is None
    assert dirty_patch() == ""


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout
