"""The match table: counts against loops over points, and the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ditr.errors import DitrError
from ditr.evaluation.instance_ap import scores
from ditr.evaluation.instances import Instances
from ditr.evaluation.match_table import FrameMatches, MatchTable, match


def random_instances(rng: np.random.Generator, *, points: int, count: int) -> Instances:
    masks = rng.random((count, points)) < rng.random((count, 1))
    return Instances(masks=masks, scores=np.sort(rng.random(count, dtype=np.float32))[::-1])


def random_table(seed: int, *, frames: int) -> MatchTable:
    rng = np.random.default_rng(seed)
    table = MatchTable(min_points=7)
    for index in range(frames):
        points = int(rng.integers(1, 200))
        found = random_instances(rng, points=points, count=int(rng.integers(0, 6)))
        table.add(f"scene0000_00_{index}", found, rng.integers(-1, int(rng.integers(0, 6)), size=points))
    return table


def as_lists(frame: FrameMatches) -> dict[str, object]:
    return {name: np.asarray(value).tolist() for name, value in vars(frame).items()}


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), points=st.integers(1, 300), count=st.integers(0, 6), gt=st.integers(0, 6))
def test_counts_equal_a_loop_over_points(seed: int, points: int, count: int, gt: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(-1, gt, size=points)
    found = random_instances(rng, points=points, count=count)
    frame = match("a_0", instances=found, instance_of_point=truth)
    shared: dict[tuple[int, int], int] = {}
    sizes, void = [0] * count, [0] * count
    for point in range(points):
        for pred in range(count):
            if not found.masks[pred, point]:
                continue
            sizes[pred] += 1
            if truth[point] == -1:
                void[pred] += 1
            else:
                shared[int(truth[point]), pred] = shared.get((int(truth[point]), pred), 0) + 1
    pairs = zip(frame.pair_gt.tolist(), frame.pair_pred.tolist(), frame.pair_points.tolist(), strict=True)
    assert [((g, p), n) for g, p, n in pairs] == sorted(shared.items())
    assert (frame.sizes.tolist(), frame.void.tolist()) == (sizes, void)
    assert frame.gt_sizes.tolist() == [int((truth == g).sum()) for g in range(truth.max() + 1)]


def test_best_iou_of_each_instance() -> None:
    masks = np.array([[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]], dtype=bool)
    found = Instances(masks=masks, scores=np.array([0.9, 0.8], dtype=np.float32))
    frame = match("a_0", instances=found, instance_of_point=np.array([0, 0, 0, 1, 2, -1]))
    np.testing.assert_allclose(frame.best_iou(), [3 / 4, 1 / 4, 0])


@pytest.mark.parametrize("frames", [0, 1, 12])
def test_the_file_holds_the_table_exactly(tmp_path: Path, frames: int) -> None:
    table = random_table(3, frames=frames)
    table.save(tmp_path / "matches.parquet")
    loaded = MatchTable.load(tmp_path / "matches.parquet")
    assert [as_lists(frame) for frame in loaded.frames] == [as_lists(frame) for frame in table.frames]
    assert loaded.min_points == 7
    np.testing.assert_array_equal(list(vars(scores(loaded)).values()), list(vars(scores(table)).values()))
    assert [path.name for path in tmp_path.iterdir()] == ["matches.parquet"]


def test_the_file_is_compressed_with_zstd(tmp_path: Path) -> None:
    random_table(3, frames=2).save(tmp_path / "matches.parquet")
    assert pq.ParquetFile(tmp_path / "matches.parquet").metadata.row_group(0).column(1).compression == "ZSTD"


def test_a_file_that_is_no_match_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DitrError, match="does not exist"):
        MatchTable.load(tmp_path / "none.parquet")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DitrError, match="cannot be read"):
        MatchTable.load(tmp_path / "cut.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DitrError, match="is not a match table"):
        MatchTable.load(tmp_path / "other.parquet")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("sizes", [1]),
        ("pair_points", [1] * 99),
        ("pair_gt", "beyond"),
        ("void", [None] * 3),
        ("frame_id", "scene0000_00_1"),
        ("frame_id", None),
    ],
)
def test_a_table_that_contradicts_itself_is_an_error(tmp_path: Path, column: str, value: object) -> None:
    """Whole parquet, with a row that no evaluation writes."""
    file = tmp_path / "matches.parquet"
    random_table(0, frames=2).save(file)
    found = pq.read_table(file)
    cells = found.column(column).to_pylist()
    cells[0] = [10**12] * len(cells[0]) if value == "beyond" else value
    changed = pa.array(cells, found.schema.field(column).type)
    pq.write_table(found.set_column(found.column_names.index(column), found.schema.field(column), changed), file)
    with pytest.raises(DitrError, match=r"contradicts itself|has gaps"):
        MatchTable.load(file)


def test_a_subset_of_frames_that_were_not_evaluated_is_an_error() -> None:
    with pytest.raises(DitrError, match="1 of 2 frames were not evaluated, the first is 'scene9_0'"):
        random_table(3, frames=2).subset(["scene0000_00_1", "scene9_0"])


def test_a_frame_is_evaluated_once() -> None:
    table = MatchTable(min_points=1)
    nothing = Instances(masks=np.zeros((0, 4), dtype=bool), scores=np.zeros(0, dtype=np.float32))
    table.add("a_0", nothing, np.zeros(4, dtype=np.int64))
    with pytest.raises(AssertionError, match="a_0"):
        table.add("a_0", nothing, np.zeros(4, dtype=np.int64))
