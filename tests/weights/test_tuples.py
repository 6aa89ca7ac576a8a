"""References to references in a torch file are counted, and never followed."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from ditr.errors import DitrError
from ditr.weights.file import read_weight_file

LEVELS = 40


def bomb() -> bytes:
    """A dict whose key is a tuple that holds the tuple below twice, and so on."""
    text = pickle.PROTO + b"\x02" + pickle.NONE + pickle.BINPUT + b"\x00"
    for level in range(LEVELS):
        text += (pickle.BINGET + bytes([level])) * 2 + pickle.TUPLE2 + pickle.BINPUT + bytes([level + 1])
    return text + pickle.EMPTY_DICT + pickle.BINGET + bytes([LEVELS]) + pickle.NONE + pickle.SETITEM + pickle.STOP


def test_in_an_archive(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(tmp_path / "bomb.pth", "w") as other:
        for name in whole.namelist():
            other.writestr(name, bomb() if name.endswith("data.pkl") else whole.read(name))
    with pytest.raises(DitrError, match=r"a tuple in its bookkeeping stands for 1,048,575 values"):
        read_weight_file(tmp_path / "bomb.pth")


def test_in_a_file_of_before_torch_1_6(tmp_path: Path) -> None:
    content = {"state_dict": {"a": torch.zeros(3)}}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    raw, own = (tmp_path / "w.pth").read_bytes(), b"}q\x00X\x0a\x00\x00\x00state_dict"
    at = raw.index(b"\x80\x02" + own)
    (tmp_path / "w.pth").write_bytes(raw[:at] + bomb() + raw[at:])
    with pytest.raises(DitrError, match=r"a tuple in its bookkeeping stands for 1,048,575 values"):
        read_weight_file(tmp_path / "w.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_tuples_that_are_shared_are_no_matter(tmp_path: Path, zipped: bool) -> None:
    shared = (1, (2, 3), ("a",) * 50)
    content = {"w": torch.ones(2), "meta": [shared] * 1000, "sets": {shared: {(1, 2): 3}}}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert read_weight_file(tmp_path / "w.pth").contents["meta"] == [shared] * 1000
