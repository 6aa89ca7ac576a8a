"""A fault, in a phase: what came of it, and of the same command when the fault is gone."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from PIL import Image

from ditr.weights.file import read_weight_file
from tests.stores.phases import Phase, Place, Stores
from tests.stores.sandbox import (
    Said,
    ditr,
    grow_disk,
    mount_disk,
    mount_read_only,
    obey_permissions,
    sandboxed,
    unmount,
)

PLENTY = 2**30
STRANGER = 54321
_PLACES: tuple[Place, ...] = ("runs", "cache", "data", "out")
_ROOM = re.compile(r"[\d,.]+ (bytes|GiB|MiB)\b.* free", re.DOTALL)


@dataclass(frozen=True)
class Whole:
    """What an undisturbed command leaves."""

    numbers: Any
    used_bytes: int
    """On the disk that it writes to, beyond what was there."""


def undisturbed(phase: Phase, given: Stores, root: Path) -> Whole:
    """The phase on a disk with room, of what the stores ``given`` hold."""

    def work() -> Whole:
        stores = _lay_out(phase, given, root, disk=PLENTY)
        before = _used(stores.at(phase.place))
        said = _call(phase, stores)
        assert said.code == 0, said
        return Whole(phase.numbers(stores), _used(stores.at(phase.place)) - before)

    return sandboxed(work)


def do_in(phase: Phase, stores: Stores) -> None:
    """The phase there, undisturbed; its numbers are what they are."""
    for place in _PLACES:
        stores.at(place).mkdir(parents=True, exist_ok=True)
    said = _call(phase, stores)
    assert said.code == 0, said


def on_a_full_disk(phase: Phase, given: Stores, root: Path, *, whole: Whole, share: float) -> str:
    """The disk has room for a share of what the phase writes; then for all of it."""

    def work() -> str:
        stores = _lay_out(phase, given, root, disk=PLENTY)
        place = stores.at(phase.place)
        before = _tree(place)
        grow_disk(place, size=_used(place) + max(2**12, int(whole.used_bytes * share)))
        said = _call(phase, stores)
        came = _judge(phase, said, stores, before=before, told=_ROOM)
        grow_disk(place, size=PLENTY)
        return came + _again(phase, stores, whole)

    return sandboxed(work)


def on_a_read_only_disk(phase: Phase, given: Stores, root: Path, *, whole: Whole) -> str:
    """Nobody can write where the phase writes; then everybody can."""

    def work() -> str:
        stores = _lay_out(phase, given, root)
        place = stores.at(phase.place)
        before = _tree(place)
        mount_read_only(place)
        said = _call(phase, stores)
        came = _judge(phase, said, stores, before=before)
        unmount(place)
        return came + _again(phase, stores, whole)

    return sandboxed(work)


def on_anothers_folder(phase: Phase, given: Stores, root: Path, *, whole: Whole) -> str:
    """What the phase writes to is another user's, who lets nobody in; then it is ours."""

    def work() -> str:
        stores = _lay_out(phase, given, root)
        place = stores.at(phase.place)
        before = _tree(place)
        mine = place.stat()
        with suppress(OSError):  # in a user namespace there is no other user
            os.chown(place, STRANGER, STRANGER)
        place.chmod(0o700 if place.stat().st_uid == STRANGER else 0)
        said = _call(phase, stores, prepare=obey_permissions)
        os.chown(place, mine.st_uid, mine.st_gid)
        place.chmod(0o755)
        return _judge(phase, said, stores, before=before) + _again(phase, stores, whole)

    return sandboxed(work)


def with_its_folder_removed(phase: Phase, given: Stores, root: Path, *, whole: Whole, at: int) -> str:
    """Somebody removes all that is there when the phase finishes its ``at``-th file; then it is called again."""

    def work() -> str:
        stores = _lay_out(phase, given, root)
        place = stores.at(phase.place)
        said = _call(phase, stores, prepare=lambda: _remove_at(place, at))
        came = _judge(phase, said, stores, before={})
        shutil.rmtree(place)
        stores = _lay_out(phase, given, root)
        return came + _again(phase, stores, whole)

    return sandboxed(work)


def _lay_out(phase: Phase, given: Stores, root: Path, *, disk: int | None = None) -> Stores:
    """Stores with what the phase needs; what it only reads are links into ``given``."""
    stores = Stores(root)
    for place in _PLACES:
        folder = stores.at(place)
        folder.mkdir(parents=True, exist_ok=True)
        if place == phase.place and disk is not None:
            mount_disk(folder, size=disk)
        for pattern in phase.needs.get(place, ()):
            for path in given.at(place).glob(pattern) if pattern else given.at(place).iterdir():
                _bring(path, folder / path.name, link=place == "cache" != phase.place)
    if not (root / "weights").exists():
        shutil.copytree(given.root / "weights", root / "weights")
    return stores


def _bring(path: Path, to: Path, *, link: bool) -> None:
    if to.exists():
        return
    if link:
        to.symlink_to(path)
    elif path.is_dir():
        shutil.copytree(path, to)
    else:
        shutil.copy2(path, to)


def _call(phase: Phase, stores: Stores, *, prepare: Callable[[], object] = lambda: None) -> Said:
    command = phase.command(stores)

    def begin() -> None:
        os.environ.update(stores.environment())
        prepare()

    return ditr(*command, folder=stores.root, prepare=begin)


def _judge(
    phase: Phase, said: Said, stores: Stores, *, before: dict[str, bytes], told: re.Pattern[str] | None = None
) -> str:
    """What came of the fault, or an AssertionError where it did harm."""
    place = stores.at(phase.place)
    assert "Traceback" not in said.out + said.err, said
    after = _tree(place)
    views = ("results.duckdb", "mlflow.db")
    assert {name: after.get(name) for name in before if name not in views} == {
        name: content for name, content in before.items() if name not in views
    }, "what was there is as it was"
    for path in place.rglob("*"):
        if path.is_file() and "mlartifacts" not in path.parts:  # MLflow's copies, which are made again
            _require_whole(path)
    if said.code == 0:
        return "done, with a warning" if "warning: " in said.err else "done"
    messages = said.err.count("error[") + said.out.count("error[")
    assert (said.code, messages) == (2, 2 if phase.views_only and messages == 2 else 1), said
    assert told is None or phase.views_only or told.search(said.out + said.err), said
    return "refused"


def _again(phase: Phase, stores: Stores, whole: Whole) -> str:
    said = _call(phase, stores)
    assert said.code == 0, said
    assert phase.numbers(stores) == whole.numbers, "the same command gives the same numbers once the fault is gone"
    for path in stores.at(phase.place).rglob("*"):
        if path.is_file():
            _require_whole(path)
    left = [path.name for path in stores.at(phase.place).rglob(".*.part")]
    assert not left, f"left behind: {left}"
    return ", then the same numbers"


def _tree(folder: Path) -> dict[str, bytes]:
    """Files that are neither hidden nor a directory of MLflow's."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def _require_whole(path: Path) -> None:
    """A file under a final name can be read to its end."""
    if path.name.startswith("."):
        return
    if path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".jsonl":
        assert path.read_text().endswith("\n") or not path.read_text(), path
        [json.loads(line) for line in path.read_text().splitlines()]
    elif path.suffix in (".npy", ".npz"):
        np.load(path, allow_pickle=False)
    elif path.suffix == ".parquet":
        pyarrow.parquet.read_table(path)
    elif path.suffix == ".safetensors":
        read_weight_file(path)
    elif path.suffix in (".png", ".jpg"):
        with Image.open(path) as image:
            image.load()


def _remove_at(place: Path, at: int) -> None:
    """From now on in this process."""
    honest, calls = Path.replace, [0]

    def replace(self: Path, target: Path) -> Path:
        calls[0] += 1
        if calls[0] == at:
            for path in place.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return honest(self, target)

    Path.replace = replace  # type: ignore[method-assign]


def _used(folder: Path) -> int:
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize
