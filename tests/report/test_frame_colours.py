"""Every colouring of a frame's points says what its name says, and the panel shows them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from ditr.report.frame_axes import PALE, WITHOUT_PIXEL, palette
from ditr.report.frame_colours import INVENTED, MISSED, RIGHT, Colouring, colourings, colours_of, keys_of
from ditr.report.frame_pictures import draw_run_view
from tests.reference.hand_made_frame import hand_made

VIEW = hand_made()


def rgb(colour: str | tuple[float, ...] | np.ndarray) -> list[int]:
    values = to_rgb(colour) if isinstance(colour, str) else colour
    return [round(255 * float(value)) for value in values]


FIRST, SECOND = map(rgb, palette(2))
NONE = rgb(PALE)


@pytest.mark.parametrize(
    ("name", "min_score", "expected"),
    [
        ("colour", 0.5, VIEW.in_space.rgb.tolist()),
        ("ground truth", 0.5, [FIRST, FIRST, SECOND, SECOND, NONE, NONE]),
        ("prediction", 0.5, [FIRST, FIRST, NONE, NONE, rgb((0.5, 0.5, 0.5)), NONE]),
        ("prediction", 0.7, [FIRST, FIRST, NONE, NONE, NONE, NONE]),
        ("disagreement", 0.5, [rgb(RIGHT), rgb(RIGHT), rgb(MISSED), rgb(MISSED), rgb(INVENTED), NONE]),
        ("disagreement", 0.2, [rgb(RIGHT)] * 4 + [rgb(INVENTED), NONE]),
        ("disagreement", 0.95, [rgb(MISSED)] * 4 + [NONE] * 2),
        ("superpoints", 0.5, [colour for colour in map(rgb, palette(3)) for _ in range(2)]),
        ("features", 0.5, [[100 + i, 101 + i, 102 + i] for i in range(0, 15, 3)] + [rgb(WITHOUT_PIXEL)]),
    ],
)
def test_points_have_the_colours_of_the_question(name: Colouring, min_score: float, expected: list[list[int]]) -> None:
    found = colours_of(VIEW, name, min_score=min_score)
    assert found.dtype == np.uint8
    assert found.tolist() == expected


def test_a_3d_only_run_offers_no_features() -> None:
    assert colourings(VIEW) == (*colourings(hand_made(features=False)), "features")
    with pytest.raises(AssertionError):
        colours_of(hand_made(features=False), "features", min_score=0)


@pytest.mark.parametrize("name", colourings(VIEW))
def test_a_key_has_the_colour_that_points_have(name: Colouring) -> None:
    keys = keys_of(VIEW, name, min_score=0.5)
    drawn = {tuple(colour) for colour in colours_of(VIEW, name, min_score=0.5).tolist()}
    of_several = {"matches no instance"}  # greys, of which the key is one
    assert all(tuple(rgb(colour)) in drawn for key, colour in keys.items() if key not in of_several)


def test_the_keys_of_the_disagreement_have_shares() -> None:
    assert list(keys_of(VIEW, "disagreement", min_score=0.5)) == [
        "right 33%",
        "missed or wrong 33%",
        "on void 17%",
        "void, and nothing predicted",
    ]


def area_of(path: Path, colour: list[int]) -> int:
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((np.abs(pixels - colour).max(axis=2) < 8).sum())


def test_the_panel_shows_features_where_there_are_some(tmp_path: Path) -> None:
    draw_run_view(VIEW, run="run", best_score=0.5, path=tmp_path / "new" / "fused.png")
    draw_run_view(hand_made(features=False), run="run", best_score=float("inf"), path=tmp_path / "plain.png")
    over_grey = rgb(np.array([200, 200, 200]) / 255 * 0.8 + 0.2 * (255 - 0.45 * (255 - 90)) / 255)
    fused, plain = tmp_path / "new" / "fused.png", tmp_path / "plain.png"
    assert area_of(fused, over_grey) > 50_000
    assert area_of(fused, over_grey) > 10 * area_of(plain, over_grey)
    for colour in (RIGHT, MISSED, INVENTED):
        assert area_of(fused, rgb(colour)) > 30


BARE = replace(
    VIEW,
    labelled=False,
    instance_of_point=np.full(6, -1),
    prediction=replace(VIEW.predicted, partner=np.full(3, -1)),
)
"""The same where nothing is known."""


def test_without_labels_predictions_have_colours_of_their_own_and_no_truth_is_offered() -> None:
    assert set(colourings(VIEW)) - set(colourings(BARE)) == {"ground truth", "disagreement"}
    found = colours_of(BARE, "prediction", min_score=0.5).tolist()
    assert found == [FIRST, FIRST, NONE, NONE, SECOND, NONE], "the third has less than the score"
    assert list(keys_of(BARE, "prediction", min_score=0.5)) == ["no prediction"]


def test_the_panel_of_a_frame_without_labels_says_nothing_of_right_and_wrong(tmp_path: Path) -> None:
    draw_run_view(BARE, run="run", best_score=0.5, path=tmp_path / "bare.png")
    draw_run_view(VIEW, run="run", best_score=0.5, path=tmp_path / "labelled.png")
    for colour in (RIGHT, MISSED, INVENTED):
        assert area_of(tmp_path / "labelled.png", rgb(colour)) > 30
        assert area_of(tmp_path / "bare.png", rgb(colour)) == 0
    assert area_of(tmp_path / "bare.png", FIRST) > 5
