from __future__ import annotations

import pytest

from ditr.data_check.frame_list import read_frame_list
from ditr.errors import DitrError


def test_a_list_keeps_its_order(tmp_path):
    """The published lists are shuffled; line ends may be those of any system."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"scene0191_00_200\r\nscene0000_00_0\n\n scene0706_00_1400 \n")
    assert read_frame_list(path) == ("scene0191_00_200", "scene0000_00_0", "scene0706_00_1400")


def test_all_mistakes_are_told_at_once(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("scene0000_00_0\nscene0000_00\nscene0000_00_0\nscene0000_00_x\nscene000_00_1.bin\n")
    with pytest.raises(DitrError) as caught:
        read_frame_list(path)
    lines = [line.strip() for line in caught.value.what.splitlines()]
    assert lines[0] == "4 mistakes in the frame list:"
    assert lines[1] == "line 2: 'scene0000_00' is no frame id"
    assert lines[-1] == "scene0000_00_0 is listed 2 times"


def test_missing_and_empty_lists_are_errors(tmp_path):
    with pytest.raises(DitrError, match="no such frame list"):
        read_frame_list(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text("\n\n")
    with pytest.raises(DitrError, match="empty"):
        read_frame_list(tmp_path / "a.txt")
