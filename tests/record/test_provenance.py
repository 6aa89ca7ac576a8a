from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ditr.record.provenance import code_changed, code_digest, collect, dirty, session_facts, sessions


def test_it_names_code_packages_and_hardware() -> None:
    found = collect()
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["pydantic"]
    assert found["packages"]["torch"]
    assert found["cpu"]["cores"] >= 1
    assert isinstance(found["gpus"], list)


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
