from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from ditr.data.classes import CLASS_NAMES, MAPPING, RAW_IDS, THING_NAMES, raw_id_on_disk, swap_chair_and_floor


def test_the_table_is_whole():
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == len(RAW_IDS) == 200
    assert all(a < b for a, b in pairwise(RAW_IDS))
    assert CLASS_NAMES[:3] == ("wall", "floor", "chair")
    assert THING_NAMES[0] == "chair"
    assert len(THING_NAMES) == 198


@pytest.mark.parametrize(
    ("index", "raw", "name"),
    [(2, 3, "chair"), (35, 41, "ceiling"), (107, 138, "paper towel roll"), (171, 1156, "bathroom counter"),
     (196, 1188, "poster"), (199, 1191, "mattress")],
)  # fmt: skip
def test_rows_agree_with_the_published_table(index, raw, name):
    assert (RAW_IDS[index], CLASS_NAMES[index]) == (raw, name)
    assert MAPPING[raw] == index


def test_mapping_sends_everything_else_to_200():
    assert MAPPING.shape == (1358,)
    assert MAPPING.dtype == np.int64
    assert MAPPING[0] == MAPPING[12] == MAPPING[1357] == 200
    assert np.sum(MAPPING < 200) == 200


def test_on_disk_chair_is_2_and_floor_is_3_and_the_swap_puts_floor_first():
    on_disk = np.array([2, 3, 0, 1, 41])
    assert [CLASS_NAMES[i] if i < 200 else None for i in MAPPING[swap_chair_and_floor(on_disk)]] == [
        "chair", "floor", None, "wall", "ceiling",
    ]  # fmt: skip
    assert np.array_equal(swap_chair_and_floor(swap_chair_and_floor(on_disk)), on_disk)
    assert raw_id_on_disk("chair") == 2
    assert raw_id_on_disk("floor") == 3
