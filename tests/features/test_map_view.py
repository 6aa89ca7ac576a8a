"""Colours of a frame's points are those of the tokens that they read, whoever made the map and whatever it covers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ditr.data.dataset import Dataset
from ditr.data.frame_view import FrameView, MapColours
from ditr.errors import DitrError
from ditr.features.map_view import MapFacts, view_of_map
from ditr.spec.entries import PrecomputedEntry
from ditr.spec.models import FeatureSpec

ROWS, COLUMNS, CHANNELS = 12, 16, 5
SPEC = FeatureSpec(source="mine", sampling="nearest")


def drawn(
    dataset: Dataset, folder: Path, tokens: torch.Tensor | None, covers: tuple[int, int]
) -> tuple[FrameView, MapColours, MapFacts]:
    """The first frame with a precomputed map."""
    entry = PrecomputedEntry(
        kind="precomputed", path=str(folder), files="{id}.pt", channels=CHANNELS, rows=ROWS, columns=COLUMNS,
        covers=covers, licence="none",
    )  # fmt: skip
    if tokens is not None:
        torch.save(tokens, folder / f"{dataset.val.ids[0]}.pt")
    view, facts = view_of_map(dataset.val, 0, spec=SPEC, entry=entry, dataset=dataset)
    assert view.features is not None
    return view, view.features, facts


@pytest.mark.parametrize("covers", [(480, 640), (560, 720)])
def test_every_point_has_the_colour_of_the_token_around_its_pixel(
    tiny_dataset: Dataset, tmp_path: Path, covers: tuple[int, int]
) -> None:
    tokens = torch.randn(CHANNELS, ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))
    view, features, facts = drawn(tiny_dataset, tmp_path, tokens, covers)
    u, v = view.uv[view.uv_valid].T
    expected = features.of_tokens[
        np.floor((v + 0.5) * ROWS / covers[0]).astype(int), np.floor((u + 0.5) * COLUMNS / covers[1]).astype(int)
    ]
    assert features.of_points is not None
    np.testing.assert_array_equal(features.of_points[view.uv_valid], expected)
    assert facts.shape == (CHANNELS, ROWS, COLUMNS)
    assert facts.stored_at == tmp_path / f"{view.frame_id}.pt"


def test_what_the_padding_holds_takes_no_part_in_the_colours(tiny_dataset: Dataset, tmp_path: Path) -> None:
    """The map covers twice the image's height and width, with anything beyond it."""
    tokens = 100 * torch.randn(CHANNELS, ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))
    tokens[:, : ROWS // 2, : COLUMNS // 2] = 0
    tokens[0, : ROWS // 2, : COLUMNS // 4] = 1
    _, features, facts = drawn(tiny_dataset, tmp_path, tokens, (960, 1280))
    np.testing.assert_allclose(facts.explained, [1, 0, 0], atol=1e-9)
    left, right = features.of_tokens[: ROWS // 2, : COLUMNS // 2].reshape(ROWS // 2, 2, -1, 3).swapaxes(0, 1)
    np.testing.assert_allclose(left, np.broadcast_to([255, 128, 128], left.shape))
    np.testing.assert_allclose(right, np.broadcast_to([0, 128, 128], right.shape))


def test_a_precomputed_map_that_is_missing_is_an_error(tiny_dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DitrError, match="no precomputed 2D feature map"):
        drawn(tiny_dataset, tmp_path, None, (480, 640))
