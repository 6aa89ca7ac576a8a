"""The tool that trains the embedded 2D source: what it sees, what it asks for, and what it leaves behind."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import avg_pool2d

from ditr.features.sources import load_source
from ditr.features.timm_models import create
from ditr.rooms.frames import FrameTask, shoot
from ditr.rooms.textures import FINE_KINDS
from ditr.spec.entries import VitEntry
from ditr.spec.models import FeatureSpec, SeededWeights
from ditr.spec.registry import Registry
from tools import make_source
from tools.make_source import NAME, SETTINGS
from tools.source import views
from tools.source.distil import Distillation, balanced, initial
from tools.source.pictures import COVERED, Rooms, scenes_of_registered_sets, take_labelled, textures
from tools.source.probe import colour_maps, probe

CPU = torch.device("cpu")
TINY = replace(
    SETTINGS,
    how=Distillation(steps=16, batch=4, window=(4, 4), max_shift=1, prototypes=16),
    training=Rooms(seed=2, first=20_000, scenes=2),
    fitted=Rooms(seed=2, first=30_000, scenes=2),
    held_out=Rooms(seed=2, first=40_000, scenes=1),
)


@pytest.fixture(scope="module")
def entry() -> VitEntry:
    entry = Registry().features(NAME)
    assert isinstance(entry, VitEntry)
    return entry


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return shoot(task(20_000)).colour


def task(scene: int) -> FrameTask:
    return FrameTask(root=Path(), scene=scene, index=0, seed=2, texture_share=0.4)


def test_the_tool_leaves_weights_that_load_beside_an_entry_that_pins_them(
    tmp_path: Path, entry: VitEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_source, "photographers", lambda: ThreadPoolExecutor(1))
    assert make_source.main(tmp_path / "features", settings=TINY) == 0
    rows = [json.loads(line) for line in (tmp_path / "features" / NAME / "log.jsonl").read_text().splitlines()]
    assert len(rows) == 16
    assert np.mean([row["loss"] for row in rows[-4:]]) < np.mean([row["loss"] for row in rows[:4]])
    probed = json.loads((tmp_path / "features" / NAME / "probe.json").read_text())
    assert {"trained", "untrained", "colour means"} <= set(probed)
    assert json.loads((tmp_path / "features" / NAME / "settings.json").read_text())["settings"]["how"]["steps"] == 16
    monkeypatch.setenv("DITR_REGISTRY", str(tmp_path))
    made = Registry(tmp_path).features(NAME)
    assert isinstance(made, VitEntry)
    assert made.weights.kind == "pretrained"
    source = load_source(FeatureSpec(source=NAME, input_size=(28, 42)), entry=made, device=CPU)
    start = initial(entry, TINY.how).vit.state_dict()
    changes = [(value - start[name]).abs().max() for name, value in source.model.named_parameters() if "qkv" in name]
    assert min(changes) > 1e-4
    file = tmp_path / "features" / f"{NAME}.safetensors"
    assert file.stat().st_size < 4e6
    assert {value.dtype for value in load_file(file).values()} == {torch.float16}


def test_no_room_of_a_data_set_is_a_room_of_the_source() -> None:
    taken = scenes_of_registered_sets(Registry())
    assert {0, 11, 12, 15, 1000, 1095, 1096, 1099, 9000, 9001} <= taken
    rooms = (SETTINGS.training, SETTINGS.fitted, SETTINGS.held_out)
    assert len(SETTINGS.scenes) == sum(len(some.numbers) for some in rooms), "the three have rooms in common"
    assert not SETTINGS.scenes & taken
    with pytest.raises(AssertionError, match="room of a data set"):
        make_source.main(settings=replace(SETTINGS, training=Rooms(seed=2, first=990, scenes=11)))


def test_views_of_a_picture_show_the_same_places_at_corresponding_patches(
    picture: np.ndarray, entry: VitEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "_jittered", lambda pixels, generator: pixels)
    seen = views.as_seen(np.stack([picture]), device=CPU)
    for seed in range(4):
        pairs = views.draw_pairs(
            seen,
            batch=6,
            window=(8, 10),
            max_shift=3,
            entry=entry,
            numbers=torch.Generator().manual_seed(seed),
            generator=torch.Generator().manual_seed(seed),
        )
        first, second = pairs.common(
            *(avg_pool2d(view, 14).permute(0, 2, 3, 1) for view in (pairs.first, pairs.second))
        )
        assert first.shape[1:3] == (8 - abs(pairs.shift[0]), 10 - abs(pairs.shift[1]))
        own = (first - second).abs().mean()
        for other in (second.roll(1, 1), second.roll(1, 2), second.roll(-1, 1), second.roll(-1, 2)):
            assert own < 0.7 * (first - other).abs().mean()


def test_colours_of_the_two_views_differ(picture: np.ndarray, entry: VitEntry) -> None:
    pairs = views.draw_pairs(
        views.as_seen(np.stack([picture]), device=CPU),
        batch=16,
        window=(8, 10),
        max_shift=0,
        entry=entry,
        numbers=torch.Generator().manual_seed(0),
        generator=torch.Generator().manual_seed(0),
    )
    means = [view.mean(dim=(2, 3)) for view in (pairs.first, pairs.second)]
    assert (means[0] - means[1]).abs().mean() > 0.2


@pytest.mark.parametrize(("angle", "direction"), [(0, 0), (45, 2), (90, 4), (135, 6)])
def test_edge_directions_tell_stripes_apart(angle: float, direction: int) -> None:
    y, x = torch.meshgrid(torch.arange(42.0), torch.arange(56.0), indexing="ij")
    across = np.cos(np.radians(angle)) * x + np.sin(np.radians(angle)) * y
    stripes = (0.5 + 0.3 * torch.sin(2 * torch.pi * across / 6)).expand(1, 3, -1, -1)
    histogram = views.edge_directions(stripes, patch=14)[0, 1, 1]  # away from the border
    assert int(histogram.argmax()) == direction
    assert histogram[direction] > 0.9
    assert views.edge_directions(torch.full((1, 3, 28, 28), 0.4), patch=14).max() < 1e-3


def test_windows_at_the_first_place_are_what_timm_computes(entry: VitEntry) -> None:
    network = initial(entry, Distillation())
    images = torch.rand(1, 3, 420, 560, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = network(images, torch.zeros(1, 2, dtype=torch.long))
        torch.testing.assert_close(tokens.flatten(1, 2), network.vit.forward_features(images)[:, 5:])


def test_the_network_starts_from_the_same_weights_each_time(entry: VitEntry) -> None:
    a, b = (initial(entry, Distillation(seed=seed)).vit.state_dict() for seed in (3, 3))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(initial(entry, Distillation(seed=4)).vit.cls_token, a["cls_token"])
    assert not torch.equal(create(entry).get_parameter("patch_embed.proj.weight"), a["patch_embed.proj.weight"])


def test_assignments_use_every_prototype_alike() -> None:
    scores = torch.randn(600, 12, generator=torch.Generator().manual_seed(0)) + torch.arange(12) * 0.5
    shares = balanced(scores, rounds=30)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(600))
    torch.testing.assert_close(shares.sum(dim=0), torch.full((12,), 50.0), rtol=0.02, atol=0)
    assert scores.softmax(dim=1).sum(dim=0).max() > 100, "unbalanced, one would have taken most"


def test_the_texture_of_a_patch_is_that_of_its_pixels() -> None:
    shot = shoot(task(30_000))
    patterns = np.array([shape.material.pattern for shape in shot.room.shapes])
    found = textures(shot)
    rng = np.random.default_rng(0)
    for row, column in rng.integers(0, (30, 40), (150, 2)):
        pixels = patterns[shot.view.hits.shape[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]].ravel()
        shares = {kind: np.mean(pixels == kind) for kind in FINE_KINDS}
        kind = max(shares, key=lambda name: shares[name])
        expected = FINE_KINDS.index(kind) if shares[kind] >= COVERED else -1
        assert found[row, column] == expected
    assert (found >= 0).sum() > 30


def test_the_probe_reads_what_is_linear_and_no_more() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 3, (8, 10, 10))
    centres = rng.normal(size=(4, 6))
    clear = torch.from_numpy(np.moveaxis(centres[labels] + 0.1 * rng.normal(size=(8, 10, 10, 6)), -1, 1))
    noise = torch.from_numpy(rng.normal(size=(8, 6, 10, 10)))
    for maps, low, high in ((clear, 0.99, 1.0), (noise, 0.15, 0.55)):
        score = probe((maps[:5], labels[:5]), (maps[5:], labels[5:]), classes=3, device=CPU)
        assert low <= score.balanced_accuracy <= high
        assert score.n == (labels[5:] >= 0).sum()


def test_the_committed_weights_tell_textures_apart_that_neither_colours_nor_random_weights_do(entry: VitEntry) -> None:
    with ThreadPoolExecutor(1) as pool:  # rooms that nobody has seen
        fitted, held_out = (
            take_labelled(Rooms(seed=2, first=first, scenes=scenes), pool=pool)
            for first, scenes in ((50_000, 12), (60_000, 6))
        )

    def balanced_accuracy(maps: list[torch.Tensor]) -> float:
        pairs = zip(maps, (fitted[1], held_out[1]), strict=True)
        return probe(*pairs, classes=len(FINE_KINDS), device=CPU).balanced_accuracy

    def of_source(weights: SeededWeights | None) -> float:
        spec = FeatureSpec(source=NAME, input_size=(420, 560), weights=weights)
        source = load_source(spec, entry=entry, device=CPU)
        return balanced_accuracy([source.encode(pictures) for pictures, _ in (fitted, held_out)])

    trained = of_source(None)
    assert trained > 0.4
    assert trained > of_source(SeededWeights(kind="seeded", seed=0)) + 0.2
    for deviations in (False, True):
        maps = [colour_maps(pictures, deviations=deviations) for pictures, _ in (fitted, held_out)]
        assert trained > balanced_accuracy(maps) + 0.2


def test_the_committed_settings_are_those_of_the_tool() -> None:
    beside = Registry().folders[0] / "features" / NAME
    made = json.loads((beside / "settings.json").read_text())
    assert made["settings"] == json.loads(json.dumps(asdict(SETTINGS)))
    rows = (beside / "log.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["step"] == SETTINGS.how.steps - 1
    probed = json.loads((beside / "probe.json").read_text())
    for control in ("untrained", "colour means", "colour means and deviations"):
        assert probed["trained"]["balanced_accuracy"] > probed[control]["balanced_accuracy"] + 0.45
