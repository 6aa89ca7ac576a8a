"""Frames that are kept for pictures: which, and what is left of them in the folder."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ditr.errors import DitrError
from ditr.evaluation.instances import Instances
from ditr.evaluation.kept import KeptFrame, load_frames, save_frame, spread_evenly, stored


@given(st.integers(0, 40), st.integers(0, 200))
def test_frames_are_spread_evenly(count: int, total: int) -> None:
    chosen = sorted(spread_evenly(count, total=total))
    assert len(chosen) == min(count, total)
    assert all(0 <= index < total for index in chosen)
    gaps = np.diff([-1, *chosen, total])
    assert not chosen or gaps.max() <= total / len(chosen) + 1


def kept_frame() -> KeptFrame:
    truth = np.array([0] * 10 + [1] * 10 + [-1] * 4)
    masks = np.stack([np.arange(24) < 9, (np.arange(24) >= 5) & (np.arange(24) < 12), np.arange(24) >= 22])
    return KeptFrame(
        index=3,
        frame_id="scene0000_00_200",
        uv=np.stack([np.arange(24) + 0.004, 100 - np.arange(24)], axis=1).astype(np.float32),
        uv_valid=np.arange(24) % 5 > 0,
        instance_of_point=truth,
        predicted=Instances(masks=masks, scores=np.array([0.9, 0.5, 0.1], dtype=np.float32)),
        map_colours=np.full((2, 3, 3), 7, dtype=np.uint8),
    )


def test_the_folder_holds_what_pictures_need(tmp_path: Path) -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    save_frame(stored(kept_frame(), image_file=file.getvalue()), tmp_path / "kept" / "scene0000_00_200.npz")
    (found,) = load_frames(tmp_path / "kept").values()
    assert (found.image == image).all()
    assert (found.uv == [[at, 100 - at] for at in range(24)]).all()
    assert found.predicted.tolist() == [0] * 9 + [1] * 3 + [-1] * 10 + [2] * 2, "the best prediction of each point"
    assert found.partner.tolist() == [0, -1, -1], "0.9 of the first; 5 of 12 and 2 of 15 points, and void"
    assert found.scores == pytest.approx([0.9, 0.5, 0.1])
    assert found.map_colours.shape == (2, 3, 3)
    assert load_frames(tmp_path / "nothing") == {}


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"PK no")
    with pytest.raises(DitrError, match="kept frame cannot be read"):
        load_frames(tmp_path)
    np.savez(path, uv=np.zeros(3))
    with pytest.raises(DitrError, match="kept frame cannot be read"):
        load_frames(tmp_path)
