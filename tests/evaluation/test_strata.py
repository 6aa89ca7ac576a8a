"""Parts of the ground truth: which instances they hold, and their AP against the slow transcription."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ditr.data.classes import CLASS_NAMES
from ditr.data.dataset import Dataset
from ditr.errors import DitrError
from ditr.evaluation.class_frequency import FREQUENCIES
from ditr.evaluation.instance_facts import INSTANCES_SCHEMA, load_instances, save_instances
from ditr.evaluation.resampling import Scored
from ditr.evaluation.strata import Stratum, strata
from ditr.evaluation.texture_ids import texture_ids
from tests.evaluation.test_instance_ap import MIN_POINTS, frames_of, table_of
from tests.reference.slow_scannet_eval import slow_average_precision

ROW = {
    "frame_id": "scene0000_00_0",
    "instance": 0,
    "n_points": 500,
    "size_m": 1.0,
    "distance_m": 2.0,
    "valid_ratio": 1.0,
    "class_name": "chair",
    "frequency": "head",
    "texture_only": None,
    "best_iou": 0.5,
}


def facts(*changes: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist([ROW | {"instance": at} | one for at, one in enumerate(changes)], INSTANCES_SCHEMA)


def by_name(table: pa.Table, *, min_points: int = 100) -> dict[tuple[str, str], Stratum]:
    return {(one.of, one.name): one for one in strata(table, min_points=min_points)}


def test_thirds_hold_a_third_each_and_say_their_bounds() -> None:
    found = by_name(facts(*({"distance_m": float(metres)} for metres in (5, 1, 2, 6, 3, 4))))
    names = [name for of, name in found if of == "distance"]
    assert names == ["below 2.67 m", "2.67 to 4.33 m", "from 4.33 m on"]
    near = found["distance", "below 2.67 m"]
    assert near.counts["scene0000_00_0"].tolist() == [False, True, True, False, False, False]
    assert near.num_instances == 2


def test_too_small_instances_are_in_no_stratum_and_move_no_bound() -> None:
    large = [{"size_m": float(size)} for size in (1, 2, 3)]
    with_small = by_name(facts(*large, {"size_m": 100.0, "n_points": 99}))
    without = by_name(facts(*large))
    assert with_small.keys() == without.keys()
    for stratum in with_small.values():
        assert not stratum.counts["scene0000_00_0"][3]
    assert strata(facts({"n_points": 5}), min_points=100) == ()


def test_what_a_data_set_does_not_say_is_no_stratum() -> None:
    assert not [of for of, _ in by_name(facts({}, {})) if of == "texture"]
    found = by_name(facts({"texture_only": True}, {"texture_only": False}, {"texture_only": True}))
    assert found["texture", "differs in texture only"].counts["scene0000_00_0"].tolist() == [True, False, True]
    assert found["texture", "differs otherwise"].num_instances == 1


def test_equal_numbers_are_one_part() -> None:
    names = [name for of, name in by_name(facts({}, {}, {}, {})) if of == "points"]
    assert names == ["from 500 on"]


def test_frames_without_ground_truth_choose_nothing() -> None:
    (stratum, *_) = strata(facts({}), min_points=100)
    assert stratum.counts["scene9999_00_0"].shape == (0,)


@pytest.mark.parametrize("seed", range(8))
def test_ap_of_a_part_ignores_other_ground_truth_as_the_protocol_ignores_small_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = frames_of(seed, 40)
    chosen = [rng.random(int(frame.instance_of_point.max(initial=-1)) + 1) < 0.5 for frame in frames]
    slow = [
        replace(frame, looked_for=frozenset(np.flatnonzero(one).tolist()))
        for frame, one in zip(frames, chosen, strict=True)
    ]
    table = table_of(frames)
    counts = dict(zip(table.frame_ids, chosen, strict=True))
    arm = Scored([table], counts=counts)
    for metric, threshold in (("ap50", 0.5), ("ap25", 0.25)):
        (expected,) = slow_average_precision(slow, thresholds=[threshold], min_points=MIN_POINTS)
        assert arm.values(metric)[0] == pytest.approx(expected, abs=1e-9)  # type: ignore[arg-type]
        assert arm.values(metric)[0] != pytest.approx(Scored([table]).values(metric)[0], abs=1e-6)  # type: ignore[arg-type]


def test_facts_survive_the_file_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "instances.parquet"
    with pytest.raises(DitrError, match="no facts about the instances"):
        load_instances(path)
    save_instances(path, [ROW, ROW | {"instance": 1, "texture_only": True}])
    assert load_instances(path).to_pylist() == [ROW, ROW | {"instance": 1, "texture_only": True}]
    pq.write_table(pa.table({"frame_id": ["a"]}), path)
    with pytest.raises(DitrError, match="other columns"):
        load_instances(path)
    path.write_bytes(b"PAR1 cut off")
    with pytest.raises(DitrError, match="cannot be read"):
        load_instances(path)


def test_every_class_is_head_common_or_tail_as_often_as_the_benchmark_says() -> None:
    assert set(FREQUENCIES) == set(CLASS_NAMES)
    counts = {name: list(FREQUENCIES.values()).count(name) for name in ("head", "common", "tail")}  # type: ignore[arg-type]
    assert counts == {"head": 66, "common": 68, "tail": 66}


def test_the_embedded_set_says_which_instances_differ_in_texture_only(tiny_dataset: Dataset, tmp_path: Path) -> None:
    known = texture_ids(tiny_dataset.root)
    assert known is not None
    frames = tiny_dataset.val
    for index, frame_id in enumerate(frames.ids):
        assert known[frame_id] <= set(frames.frame(index).instance_ids.tolist())
    assert texture_ids(tmp_path) is None
