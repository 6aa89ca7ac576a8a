"""Views of frames: what the data say, which frames are kept, and what is left of them in the folder."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from ditr.data.classes import CLASS_NAMES, RAW_IDS
from ditr.data.dataset import Dataset
from ditr.data.frame_view import (
    FrameView,
    MapColours,
    Prediction,
    instance_names,
    load_views,
    save_view,
    spread_evenly,
    view_of,
)
from ditr.errors import DitrError
from ditr.paths import project_dir
from ditr.report.frame_axes import draw_tokens

IMAGE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


@given(st.integers(0, 40), st.integers(0, 200))
def test_frames_are_spread_evenly(count: int, total: int) -> None:
    chosen = sorted(spread_evenly(count, total=total))
    assert len(chosen) == min(count, total)
    assert all(0 <= index < total for index in chosen)
    gaps = np.diff([-1, *chosen, total])
    assert not chosen or gaps.max() <= total / len(chosen) + 1


def test_a_view_is_what_the_data_say(tiny_dataset: Dataset) -> None:
    frames = tiny_dataset.val
    view, frame = view_of(frames, 1), frames.frame(1)
    assert (view.instance_of_point + 1 == frame.instance_ids).all()
    assert (view.image == frames.image(1)).all()
    names = instance_names(frame)
    for instance in np.unique(frame.instance_ids[frame.instance_ids > 0]):
        (raw,) = np.unique(frame.semantic_ids[frame.instance_ids == instance])
        swapped = {2: 3, 3: 2}.get(int(raw), int(raw))  # chair and floor, as ESAM swaps them
        assert names[instance - 1] == CLASS_NAMES[list(RAW_IDS).index(swapped)]


def view(*, features: MapColours | None = None) -> FrameView:
    return FrameView(
        frame_id="scene0000_00_200",
        image=IMAGE,
        uv=np.stack([np.arange(24) + 0.004, 100 - np.arange(24)], axis=1).astype(np.float32),
        uv_valid=np.arange(24) % 5 > 0,
        instance_of_point=np.array([0] * 10 + [1] * 10 + [-1] * 4),
        prediction=Prediction(
            of_point=np.arange(24) % 3 - 1,
            scores=np.array([0.9, 0.5], dtype=np.float32),
            partner=np.array([0, -1]),
        ),
        features=features,
    )


def image_file() -> bytes:
    file = io.BytesIO()
    Image.fromarray(IMAGE).save(file, "PNG")
    return file.getvalue()


def test_the_folder_holds_what_pictures_need(tmp_path: Path) -> None:
    tokens = np.full((2, 3, 3), 7, dtype=np.uint8)
    given = view(features=MapColours(of_tokens=tokens, covers_hw=(8, 12)))
    save_view(given, tmp_path / "kept", image_file=image_file())
    ((name, found),) = load_views(tmp_path / "kept").items()
    assert name == found.frame_id == "scene0000_00_200"
    assert (found.image == IMAGE).all()
    assert (found.uv == [[at, 100 - at] for at in range(24)]).all()
    assert (found.uv_valid == given.uv_valid).all()
    assert (found.instance_of_point == given.instance_of_point).all()
    for field in ("of_point", "scores", "partner"):
        assert (getattr(found.predicted, field) == getattr(given.predicted, field)).all()
    assert found.features is not None
    assert (found.features.of_tokens == tokens).all()
    assert found.features.covers_hw == (8, 12)
    assert load_views(tmp_path / "nothing") == {}


def test_features_of_points_are_kept_and_drawn_at_their_pixels(tmp_path: Path) -> None:
    of_points = np.arange(72, dtype=np.uint8).reshape(1, 24, 3)
    given = view(features=MapColours(of_tokens=of_points, covers_hw=None))
    save_view(given, tmp_path, image_file=image_file())
    found = load_views(tmp_path)["scene0000_00_200"]
    assert found.features is not None
    assert found.features.covers_hw is None
    assert (found.features.of_tokens == of_points).all()
    axes = Figure().subplots()
    draw_tokens(axes, found, opacity=1.0)
    (drawn,) = axes.collections
    assert (np.rint(255 * drawn.get_facecolor()[:, :3]) == of_points[0, found.uv_valid]).all()
    assert (np.asarray(drawn.get_offsets()) == found.uv[found.uv_valid]).all()


def test_a_3d_only_run_keeps_no_features(tmp_path: Path) -> None:
    save_view(view(), tmp_path, image_file=image_file())
    assert load_views(tmp_path)["scene0000_00_200"].features is None


def test_what_a_killed_process_left_is_no_frame(tmp_path: Path) -> None:
    for name in (".scene0000_00_200.npz.123.npz", ".scene0000_00_200.npz.123.part"):
        (tmp_path / name).write_bytes(b"PK half")
    assert load_views(tmp_path) == {}
    save_view(view(), tmp_path, image_file=image_file())
    assert list(load_views(tmp_path)) == ["scene0000_00_200"]


def test_the_frames_of_the_study_can_be_read() -> None:
    """They were written before files said what the map covers."""
    runs = [*(project_dir() / "docs" / "study" / "runs").glob("*-s0-*")][:4]
    found = {run.name: load_views(run / "kept") for run in runs}
    views = [view for of_run in found.values() for view in of_run.values()]
    assert views
    for one in views:
        assert one.image.shape == (480, 640, 3)
        assert len(one.uv) == len(one.uv_valid) == len(one.instance_of_point) == len(one.predicted.of_point)
        assert one.features is None or one.features.covers_hw == (480, 640)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"PK no")
    with pytest.raises(DitrError, match="kept frame cannot be read"):
        load_views(tmp_path)
    np.savez(path, uv=np.zeros(3))
    with pytest.raises(DitrError, match="kept frame cannot be read"):
        load_views(tmp_path)
