"""The picture of a frame's features: each token's colour at its pixels, each point's at its own, grey without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ditr.data.frame_view import Cloud, FrameView, MapColours
from ditr.geometry.camera import Intrinsics
from ditr.report.frame_axes import WITHOUT_PIXEL
from ditr.report.frame_pictures import draw_features, feature_figure

RED, BLUE = (0.8, 0.2, 0.2), (0.2, 0.4, 0.8)
HEIGHT, WIDTH = 48, 64
INTRINSICS = Intrinsics(fx=50, fy=50, cx=31.5, cy=23.5, width=WIDTH, height=HEIGHT)


def two_halves(*, map_hw: tuple[int, int] = (HEIGHT, WIDTH)) -> FrameView:
    """Tokens red in the left half of the map and blue in the right; points on a grid, the first 200 without a pixel."""
    v, u = np.meshgrid(np.arange(0, HEIGHT, 0.5), np.arange(0, WIDTH, 0.5), indexing="ij")
    uv = np.stack([u.ravel(), v.ravel()], axis=1)
    valid = np.arange(len(uv)) >= 200
    pose = np.eye(4)
    pose[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]  # looks along +y, its right is +x
    ids = np.zeros(len(uv), dtype=np.int64)
    xyz = np.stack([uv[:, 0] / 20, np.full(len(uv), 2.0), (HEIGHT - uv[:, 1]) / 20], axis=1).astype(np.float32)
    tokens = np.tile(np.array(RED), (6, 8, 1))
    tokens[:, 4:] = BLUE
    of_points = np.where(uv[:, :1] < map_hw[1] / 2 - 0.5, RED, BLUE)
    return FrameView(
        frame_id="scene0000_00_0",
        image=np.full((HEIGHT, WIDTH, 3), 128, dtype=np.uint8),
        uv=np.where(valid[:, None], uv, 0.0),
        uv_valid=valid,
        instance_of_point=ids,
        cloud=Cloud(
            xyz=xyz,
            rgb=np.zeros((len(uv), 3), dtype=np.uint8),
            superpoints=ids,
            intrinsics=INTRINSICS,
            pose_c2w=pose,
        ),
        features=MapColours(
            of_tokens=np.rint(255 * tokens).astype(np.uint8),
            covers_hw=map_hw,
            of_points=np.rint(255 * of_points).astype(np.uint8),
        ),
    )


def drawn(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3] / 255


def at(picture: np.ndarray, figure: Figure, panel: int, u: float, v: float) -> np.ndarray:
    """The colour that the panel shows at a place of its own coordinates."""
    x, y = figure.axes[panel].transData.transform((u, v))
    return picture[len(picture) - 1 - int(y), int(x)]


@pytest.mark.parametrize("u", [1, 15, 30, 33, 50, 62])
def test_the_map_and_the_points_have_the_tokens_colours_at_their_pixels(u: float) -> None:
    figure = feature_figure(two_halves(), title="t", caption="c")
    picture = drawn(figure)
    expected = RED if u < WIDTH / 2 - 0.5 else BLUE
    for v in (4, 24, 44):
        np.testing.assert_allclose(at(picture, figure, 1, u, v), expected, atol=0.01)
        np.testing.assert_allclose(at(picture, figure, 3, u, v), expected, atol=0.01)
        blended = at(picture, figure, 2, u, v)
        np.testing.assert_allclose(blended, 0.55 * np.array(expected) + 0.45 * 128 / 255, atol=0.02)


def test_a_padded_map_is_drawn_where_its_tokens_are_and_cut_at_the_image() -> None:
    """The map covers 80 columns of which the image has 64: the colours change at 40, not in the image's middle."""
    figure = feature_figure(two_halves(map_hw=(HEIGHT, 80)), title="t", caption="c")
    picture = drawn(figure)
    for panel in (1, 3):
        np.testing.assert_allclose(at(picture, figure, panel, 37, 20), RED, atol=0.01)
        np.testing.assert_allclose(at(picture, figure, panel, 42, 20), BLUE, atol=0.01)
    assert figure.axes[1].get_title(loc="left") == "map of 6 x 8 tokens over 48 x 80 pixels, cut at the image"
    assert figure.axes[1].get_xlim() == figure.axes[0].get_xlim() == (-0.5, WIDTH - 0.5)
    assert figure.axes[1].get_ylim() == figure.axes[0].get_ylim() == (HEIGHT - 0.5, -0.5)


def test_points_without_a_pixel_are_grey_in_space_and_not_on_the_image() -> None:
    coloured = two_halves()
    figure = feature_figure(coloured, title="t", caption="c")
    pixels, space, above = figure.axes[3:6]
    assert len(pixels.collections[0].get_offsets()) == np.count_nonzero(coloured.uv_valid)
    for axes in (space, above):
        grey = np.all(np.isclose(axes.collections[0].get_facecolor()[:, :3], WITHOUT_PIXEL), axis=1)
        assert grey.sum() == 200
    assert "200 without a pixel in grey" in space.get_title(loc="left")


def test_from_above_left_and_right_are_those_of_the_image() -> None:
    figure = feature_figure(two_halves(), title="t", caption="c")
    points = figure.axes[5].collections[0]
    colours, places = points.get_facecolor()[:, :3], points.get_offsets()
    red, blue = (places[np.all(np.isclose(colours, one), axis=1), 0] for one in (RED, BLUE))
    assert red.max() < blue.min()
    assert places[:, 1].min() > 0  # in front of the camera, which is at 0


def test_the_file_is_a_png_in_a_folder_that_is_made(tmp_path: Path) -> None:
    path = tmp_path / "pictures" / "frame.png"
    draw_features(two_halves(), title="scene0000_00_0: 2D features", caption="map: 16 x 6 x 8", path=path)
    assert path.read_bytes().startswith(b"\x89PNG")
