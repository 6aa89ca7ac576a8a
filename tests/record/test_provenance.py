from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ditr.record import provenance
from ditr.record.provenance import code_changed, code_digest, collect, dirty, dirty_patch, session_facts, sessions


def test_it_names_code_packages_and_hardware() -> None:
    found = collect()
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["pydantic"]
    assert found["packages"]["torch"]
    assert found["cpu"]["cores"] >= 1
    assert isinstance(found["gpus"], list)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    monkeypatch.setattr(provenance, "_CHECKOUT", folder)
    git(folder, "init", "-q")
    (folder / "a.py").write_text("one\n")
    (folder / ".gitignore").write_text("runs/\n")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "first")
    return folder


def test_a_clean_checkout_has_no_patch(checkout: Path) -> None:
    (checkout / "runs").mkdir()
    (checkout / "runs" / "log.txt").write_text("ignored")
    state = collect()["git"]
    assert state == {"commit": git(checkout, "rev-parse", "HEAD").strip(), "dirty": False}
    assert dirty_patch() == ""


def test_commit_and_patch_give_back_the_code_that_ran(checkout: Path, tmp_path: Path) -> None:
    (checkout / "a.py").write_text("two\n")
    (checkout / "new.yaml").write_text("name: new\n")
    (checkout / "big.bin").write_bytes(b"\0" * 1_000_001)
    assert collect()["git"]["dirty"] is True
    patch = dirty_patch()
    assert "big.bin, 1000001 bytes" in patch
    again = tmp_path / "again"
    git(tmp_path, "clone", "-q", str(checkout), str(again))
    (tmp_path / "dirty.patch").write_text(patch)
    git(again, "apply", str(tmp_path / "dirty.patch"))
    assert (again / "a.py").read_text() == "two\n"
    assert (again / "new.yaml").read_text() == "name: new\n"


def test_outside_a_checkout_there_is_no_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_CHECKOUT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert collect()["git"] is None
    assert dirty_patch() == ""


def test_the_code_digest_follows_what_decides_numbers_and_nothing_else(tmp_path: Path) -> None:
    package = tmp_path / "ditr"
    for name in ("model/net.py", "model/tiles.json", "cli/main.py", "report/page.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("one")
    before = code_digest(package)
    (package / "cli/main.py").write_text("two")
    (package / "report/page.py").write_text("two")
    (package / "model/notes.txt").write_text("two")
    assert code_digest(package) == before
    (package / "model/net.py").write_text("two")
    changed = code_digest(package)
    (package / "model/net.py").rename(package / "model/other.py")
    renamed = code_digest(package)
    (package / "model/tiles.json").write_text("two")
    assert len({before, changed, renamed, code_digest(package)}) == 4


CLEAN, DIRTY = {"commit": "a", "dirty": False}, {"commit": "a", "dirty": True, "patch_sha256": "1"}
FACTS: dict[str, Any] = {
    "git": CLEAN,
    "code": "new",
    "packages": {"torch": "2.13.0", "NumPy": "2.4", "rich": "15"},
    "device": "cpu",
    "threads": 1,
    "earlier_sessions": [],
}


def begun(**before: Any) -> dict[str, Any]:
    """A training whose session before differed in this."""
    return FACTS | {"earlier_sessions": [session_facts(FACTS | before)]}


def test_a_session_keeps_the_packages_that_compute_numbers() -> None:
    kept = session_facts(FACTS)
    assert kept["packages"] == {"torch": "2.13.0", "NumPy": "2.4"}
    assert (kept["code"], kept["git"], kept["device"], kept["threads"]) == ("new", CLEAN, "cpu", 1)
    assert sessions(begun(device="gpu")) == (kept | {"device": "gpu"}, kept)


def test_code_has_changed_when_its_digest_has_whatever_git_says() -> None:
    assert not code_changed(FACTS)
    assert not code_changed(begun(git={"commit": "b", "dirty": True})), "a commit of docs changes no number"
    assert code_changed(begun(code="old")), "the same commit, and another patch"
    outside = begun(git=None) | {"git": None}
    assert not code_changed(outside)
    assert code_changed(outside | {"code": "newer"})


def test_sessions_that_noted_git_alone_have_the_code_of_the_same_git_state() -> None:
    def noted(git: dict[str, Any] | None) -> dict[str, Any]:
        return FACTS | {"earlier_sessions": [{"git": git, "device": "cpu", "threads": 1}]}

    assert not code_changed(noted(CLEAN))
    assert sessions(noted(CLEAN))[0]["packages"] == session_facts(FACTS)["packages"]
    for other in (DIRTY, None):
        assert code_changed(noted(other))
        assert sessions(noted(other))[0]["packages"] is None
    assert code_changed(noted(None) | {"git": None}), "outside of git nothing says that it is the same"


def test_dirty_is_about_uncommitted_changes_of_any_session() -> None:
    assert dirty(FACTS) is False
    assert dirty(begun(code="old", git={"commit": "b", "dirty": False})) is False
    assert dirty(begun(git=DIRTY)) is True
    assert dirty(begun(git=DIRTY) | {"git": None}) is True
    assert dirty(begun(git=None)) is None


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout
