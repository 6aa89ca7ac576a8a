"""No code of a weight file runs: neither what it names, nor what stands in its place; and damage is told as damage."""

from __future__ import annotations

import functools
import io
import os
import pickle
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ditr.errors import Code, DitrError
from ditr.weights.file import Inert, read_weight_file

WEIGHTS = {"backbone.bn.weight": torch.arange(4.0), "backbone.bn.bias": torch.zeros(2, 3)}


class Call:
    """Pickled as a call: reading it as pickle does would make the call."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that code in the weight file would make."""
    return tmp_path / "it_ran"


@pytest.fixture
def mmengine(marker: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """An mmengine that is installed, and whose function and class do harm when called, made or restored."""
    module = types.ModuleType("mmengine")

    def harm(*_arguments: object) -> None:
        marker.touch()

    class Hook:
        __init__ = __setstate__ = __setitem__ = harm

        def __reduce__(self) -> tuple[Any, ...]:
            return Hook, ("made",), {"state": 1}

    for name, thing in {"harm": harm, "Hook": Hook}.items():
        thing.__module__, thing.__qualname__ = "mmengine", name
        setattr(module, name, thing)
    monkeypatch.setitem(sys.modules, "mmengine", module)
    return module


def refused(path: Path) -> DitrError:
    with pytest.raises(DitrError) as caught:
        read_weight_file(path)
    assert caught.value.code is Code.CHECKPOINT
    assert caught.value.where == str(path)
    assert caught.value.fix
    return caught.value


def runstring() -> Callable[..., None]:
    """A function of numpy, a package of the allowed bookkeeping, that runs its argument as code."""
    from numpy.testing._private.utils import runstring

    return runstring


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (os.system, "posix.system"),
        (eval, "builtins.eval"),
        (exec, "builtins.exec"),
        (__import__, "builtins.__import__"),
        (setattr, "builtins.setattr"),
        (functools.partial, "functools.partial"),
        (pickle.loads, "pickle.loads"),
    ],
)
def test_unknown_code_is_refused_by_name(
    function: Callable[..., Any], named: str, marker: Path, tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    torch.save({"state_dict": WEIGHTS, "hub": Call(function, f"touch {marker}")}, path)
    assert named in refused(path).what
    assert not marker.exists()


def test_known_names_are_stood_in_for_and_never_called(
    mmengine: types.ModuleType, marker: Path, tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    hook = object.__new__(mmengine.Hook)
    objects = {
        "function": Call(mmengine.harm, "argument"),
        "made and restored": hook,
        "attribute": Call(getattr, mmengine.Hook, "__subclasses__"),
        "code of numpy": Call(runstring(), f"open({str(marker)!r}, 'w')", {}),
    }
    torch.save({"state_dict": WEIGHTS, **objects}, path)
    before = set(torch.serialization.get_safe_globals())
    file = read_weight_file(path)
    assert not marker.exists()
    assert all(type(file.contents[name]) is Inert for name in objects)
    assert all(torch.equal(file.tensors[name], tensor) for name, tensor in WEIGHTS.items())
    assert set(torch.serialization.get_safe_globals()) == before


def test_a_stand_in_does_not_carry_code_to_where_it_runs(
    mmengine: types.ModuleType, marker: Path, tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    command = f"touch {marker}"
    torch.save({"state_dict": WEIGHTS, "hub": Call(mmengine.harm, os.system, command)}, path)
    assert "posix.system" in refused(path).what
    # Calls what a call gave: __reduce__ of the pickler would not write it.
    chained = b"\x80\x02cmmengine\nharm\n)RX\x01\x00\x00\x00a\x85R."
    torch.save({"state_dict": WEIGHTS}, path)
    rewrite(path, chained)
    assert "unrecognized function" in refused(path).what
    for harmful in (b"cposix\nsystem\n", b"cos\nsystem\n", b"csys\nexit\n", b"c__builtin__\neval\n"):
        rewrite(path, b"\x80\x02" + harmful + b"X\x01\x00\x00\x00a\x85R.")
        refused(path)
    assert not marker.exists()


def pickled_in(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))


def rewrite(path: Path, pickled: bytes, *, compression: int = zipfile.ZIP_STORED) -> None:
    """The same archive with another pickle."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else content)


def test_objects_that_cannot_be_stood_in_for_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Table(dict[str, int]):
        """A dictionary of a framework's: the unpickler fills plain ones only."""

    module = types.ModuleType("mmengine")
    Table.__module__, Table.__qualname__ = "mmengine", "Table"
    module.Table = Table  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mmengine", module)
    torch.save({"state_dict": WEIGHTS, "table": Table(a=1)}, tmp_path / "w.pth")
    assert "without running code" in refused(tmp_path / "w.pth").what


def test_files_of_torch_before_1_6_load_and_older_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"state_dict": WEIGHTS, "epoch": 3}, path, _use_new_zipfile_serialization=False)
    file = read_weight_file(path)
    assert file.container == "torch before 1.6"
    assert file.contents == {"epoch": 3}
    assert all(torch.equal(file.tensors[name], tensor) for name, tensor in WEIGHTS.items())
    content = path.read_bytes()
    for end in range(20, len(content), max(1, len(content) // 40)):
        path.write_bytes(content[:end])
        refused(path)
    torch.save({"state_dict": WEIGHTS, "hub": Call(os.system, "true")}, path, _use_new_zipfile_serialization=False)
    assert "posix.system" in refused(path).what

    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"), io.BytesIO())
    assert "tar format" in refused(path).what
    path.write_bytes(pickle.dumps({"state_dict": 3}))
    assert "bare pickle" in refused(path).what


def test_a_cut_or_damaged_archive_is_told(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"state_dict": WEIGHTS}, path)
    content = path.read_bytes()
    for end in (len(content) // 2, len(content) - 1):
        path.write_bytes(content[:end])
        assert "or cut short" in refused(path).what
    of_weights = content.index(WEIGHTS["backbone.bn.weight"].numpy().tobytes())
    path.write_bytes(content[: of_weights + 5] + b"\x01" + content[of_weights + 6 :])
    assert "data/0 does not match its checksum" in refused(path).what
    path.write_bytes(content)
    rewrite(path, pickled_in(path), compression=zipfile.ZIP_DEFLATED)
    assert "with compression" in refused(path).what
    path.write_bytes(content)
    rewrite(path, b"\x80\x02}X\x05\x00\x00")
    assert "damaged" in refused(path).what
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no weights")
    assert "damaged" in refused(path).what
    torch.save({"state_dict": WEIGHTS}, path, pickle_protocol=4)
    assert "another protocol" in refused(path).what


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x00" * 64, b"version https://git-lfs.github.com/"])
def test_what_is_no_weight_file_is_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    assert "neither torch's nor safetensors" in refused(path).what
    torch.save(WEIGHTS, tmp_path / "w.safetensors")
    assert "is torch's" in refused(tmp_path / "w.safetensors").what
    torch.save([torch.zeros(2)], path)
    assert "a list, not a dictionary" in refused(path).what
