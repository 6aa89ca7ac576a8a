"""Which tiles a product takes: those of the committed table on a card that it was made for, else safe ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, fields
from importlib import resources
from typing import Any

import pytest
import torch

from ditr.model.sparse.triton import tiles
from ditr.model.sparse.triton.maps import PADDING
from ditr.model.sparse.triton.tiles import (
    STEM_ROWS,
    GatherTile,
    GradientTile,
    gather_tile,
    gradient_tile,
    safe_gather_tile,
    safe_gradient_tile,
)

TABLE: dict[str, dict[str, dict[str, int]]] = json.loads(
    resources.files("ditr.model.sparse.triton").joinpath("tiles.json").read_text()
)
SHARED_KIB = {"sm_90": 227, "any": 99}
"""Of shared memory that a block may have: on the card, and the least since Ampere (sm_86)."""
GPU = torch.device("cuda", 0)
CHANNELS = [3, 5, 16, 17, 32, 48, 64, 96, 128, 192, 256, 384, 512]


def fits(tile: GatherTile | GradientTile, *, itemsize: int, kib: int) -> bool:
    """Both factors of a product, once for every stage."""
    if isinstance(tile, GatherTile):
        numbers = tile.reduction * (tile.rows + tile.columns)
    else:
        numbers = tile.pairs * (tile.channels_in + tile.channels_out)
    return tile.stages * numbers * itemsize <= kib * 1024


@pytest.fixture
def capability(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """The last is the card's."""
    cards = [(9, 0)]
    cached = (tiles._frozen, gather_tile, gradient_tile)
    for one in cached:
        one.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: cards[-1])
    yield cards
    for one in cached:
        one.cache_clear()


@pytest.mark.parametrize(
    ("dtype", "line"), [(torch.float32, "float32"), (torch.float16, "half"), (torch.bfloat16, "half")]
)
@pytest.mark.usefixtures("capability")
def test_the_table_s_by_card_channels_and_precision(dtype: torch.dtype, line: str) -> None:
    card = TABLE["sm_90"]
    gather = gather_tile(1, 128, 192, dtype=dtype, device=GPU)
    assert asdict(gather) == card[f"gather 1 x 128 x 192 {line}"]
    assert asdict(gather_tile(1, 192, 128, dtype=dtype, device=GPU)) == card[f"gather 1 x 192 x 128 {line}"]
    gradient = gradient_tile(27, 32, 32, dtype=dtype, device=GPU)
    assert asdict(gradient) == card[f"gradient 27 x 32 x 32 {line}"]
    unknown = gather_tile(1, 127, 192, dtype=dtype, device=GPU)
    assert unknown == safe_gather_tile(127, 192, dtype=dtype)


@pytest.mark.parametrize("device", [GPU, torch.device("cpu")], ids=str)
def test_an_unknown_card_gets_the_safe_choice(device: torch.device, capability: list[tuple[int, int]]) -> None:
    capability.append((8, 6))
    for dtype in (torch.float32, torch.bfloat16):
        assert gather_tile(1, 128, 192, dtype=dtype, device=device) == safe_gather_tile(128, 192, dtype=dtype)
        assert gradient_tile(27, 32, 32, dtype=dtype, device=device) == safe_gradient_tile(32, 32, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels_in", CHANNELS)
def test_the_safe_choice_fits_every_card(dtype: torch.dtype, channels_in: int) -> None:
    for channels_out in CHANNELS:
        for tile in (
            safe_gather_tile(channels_in, channels_out, dtype=dtype),
            safe_gradient_tile(channels_in, channels_out, dtype=dtype),
        ):
            assert fits(tile, itemsize=dtype.itemsize, kib=SHARED_KIB["any"])
            assert_valid(tile)


LINES = [(card, name, line) for card, lines in TABLE.items() for name, line in lines.items()]


def test_every_line_of_the_table_is_a_tile_that_fits_its_card() -> None:
    assert LINES
    for card, name, line in LINES:
        found = re.fullmatch(r"(gather|gradient) (1|8|27) x (\d+) x (\d+) (float32|half)", name)
        assert found, name
        kind: Any = GatherTile if found[1] == "gather" else GradientTile
        assert line.keys() == {field.name for field in fields(kind)}, name
        assert_valid(kind(**line))
        assert fits(kind(**line), itemsize=4 if found[5] == "float32" else 2, kib=SHARED_KIB[card]), name


def test_no_tile_has_more_rows_than_columns_are_padded_to() -> None:
    assert PADDING % STEM_ROWS == 0
    assert all(PADDING % line["rows"] == 0 for _, name, line in LINES if name.startswith("gather"))


def assert_valid(tile: GatherTile | GradientTile) -> None:
    sizes = asdict(tile)
    assert sizes.pop("stages") in range(1, 9)
    assert sizes.pop("warps") in (1, 2, 4, 8)
    for size in sizes.values():
        assert size >= 16, "a product takes at least so many"
        assert size & (size - 1) == 0, "powers of two"
