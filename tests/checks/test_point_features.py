"""Features of points: every stage passes where they are right, and names what is wrong where they are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ditr.checks.stages import run_stage
from ditr.data.batch import Batch
from ditr.features.precomputed_maps import PrecomputedMaps
from ditr.geometry.sampling import sample_map
from ditr.progress import silent
from ditr.spec.entries import PointsEntry

if TYPE_CHECKING:
    from conftest import World

Spoil = Callable[[np.ndarray], np.ndarray]


def of_points(world: World, spoil: Spoil = lambda rows: rows, *, late: int = 0) -> None:
    """What the points read of the sound maps, as a table a frame; ``late`` frames behind."""
    folder = world.folder.with_name("of_points")
    folder.mkdir()
    samples = world.samples(augmented=False)
    for index, frame in enumerate(world.frames.ids):
        sample = samples[(index + late) % len(world.frames)]
        assert sample.map_hw is not None
        assert sample.tokens is not None
        rows = sample_map(sample.tokens, sample.uv, map_hw=sample.map_hw, mode="bilinear")
        np.save(folder / f"{frame}.npy", spoil(rows.numpy()))
    world.entry = PointsEntry(kind="points", path=str(folder), files="{id}.npy", channels=32)
    world.change(source="theirs", input_size=None)
    world.maps, world.load = PrecomputedMaps(folder, entry=world.entry, frame_ids=world.frames.ids), None


def failed(world: World, *stages: int) -> list[str]:
    checks = [check for stage in stages for check in run_stage(stage, world.subject(), every_map=True, progress=silent)]
    assert checks
    return [check.name for check in checks if not check.passed]


def test_every_stage_passes_with_sound_features(world: World) -> None:
    of_points(world)
    assert failed(world, 1, 2, 3, 4) == []


def test_the_model_reads_what_it_reads_of_the_maps_that_they_were_made_of(world: World) -> None:
    of_map = world.build().read_2d(
        Batch(samples=tuple(world.samples(augmented=False)[i] for i in (0, 1))), statistics={}
    )
    of_points(world)
    samples = tuple(world.samples(augmented=True)[index] for index in (0, 1))  # augmented points keep their rows
    own = world.build().read_2d(Batch(samples=samples), statistics={})
    assert of_map is not None
    assert own is not None
    assert own.valid.all()
    torch.testing.assert_close(own.dense(), of_map.dense(), rtol=1e-3, atol=1e-3)  # tables are kept in float16


@pytest.mark.parametrize(
    ("spoil", "late", "name"),
    [
        (lambda rows: np.random.default_rng(0).permutation(rows), 0, "own_image"),
        (lambda rows: rows[::-1], 0, "own_image"),
        (lambda rows: np.roll(rows, len(rows) // 3, axis=0), 0, "own_image"),
        (lambda rows: rows, 1, "own_image"),
        (lambda rows: rows[:-1], 0, "map_shape"),
        (lambda rows: rows[:, :-1], 0, "maps_unreadable"),
        (lambda rows: rows.T, 0, "maps_unreadable"),
        (lambda rows: rows[:1], 0, "maps_unreadable"),
        (lambda rows: np.where(np.arange(len(rows))[:, None] == 5, np.nan, rows), 0, "maps_unreadable"),
        (lambda rows: np.ones_like(rows), 0, "map_variation"),
    ],
    ids=[
        "rows in no order", "rows from the end", "rows too late", "of the next frame", "a row too few",
        "a channel too few", "channels first", "one row", "nan", "constant",
    ],
)  # fmt: skip
def test_a_fault_of_the_features_is_caught(spoil: Spoil, late: int, name: str, world: World) -> None:
    of_points(world, spoil, late=late)
    assert name in failed(world, 1)


def test_a_missing_table_is_caught(world: World) -> None:
    of_points(world)
    assert world.maps is not None
    world.maps.path(world.frames.ids[2]).unlink()
    assert failed(world, 1) == ["maps_present"]
