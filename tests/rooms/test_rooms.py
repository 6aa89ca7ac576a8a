from __future__ import annotations

import json
from itertools import combinations, pairwise

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from ditr.catalog import locate_dataset
from ditr.data.classes import CLASS_NAMES, raw_id_on_disk
from ditr.data.dataset import open_folder
from ditr.data.frame_files import read_image
from ditr.errors import DitrError
from ditr.geometry.camera import SCANNET_SV_INTRINSICS, Intrinsics, project
from ditr.geometry.oversegmentation import oversegment
from ditr.progress import silent
from ditr.rooms import content_digest, make
from ditr.rooms.groups import cut, panel
from ditr.rooms.render import cast
from ditr.rooms.room import MAX_THINGS, MIN_THINGS, SHELL, furnish
from ditr.rooms.shapes import intersect, rotation_z, shape
from ditr.rooms.textures import FINE_KINDS, Material, fine
from ditr.spec.entries import SplitEntry, SynthRoomsEntry
from ditr.spec.registry import Registry

PLAIN = Material(colour=(0.5, 0.5, 0.5))


def inside(kind: str, points: np.ndarray) -> np.ndarray:
    """Whether points (n, 3) lie in the unit shape, from its definition."""
    if kind == "box":
        return (np.abs(points) <= 1).all(axis=1)
    if kind == "ellipsoid":
        return (points**2).sum(axis=1) <= 1
    return ((points[:, :2] ** 2).sum(axis=1) <= 1) & (np.abs(points[:, 2]) <= 1)


@pytest.mark.parametrize("kind", ["box", "ellipsoid", "cylinder"])
def test_ray_intersections_agree_with_marching_along_the_ray(kind):
    rng = np.random.default_rng(3)
    steps = np.arange(0, 8, 1e-3)
    hits = 0
    for _ in range(150):
        origin = rng.normal(size=3)
        origin *= rng.uniform(1.9, 3.5) / np.linalg.norm(origin)
        direction = rng.normal(0, 0.5, 3) - origin
        direction /= np.linalg.norm(direction)
        entered = inside(kind, origin + steps[:, None] * direction)
        found = float(intersect(kind, origin, [np.float32(d) for d in direction]))
        if entered.sum() > 5:
            hits += 1
            assert found == pytest.approx(steps[entered.argmax()], abs=2e-3)
        elif not entered.any():
            chord = np.isfinite(found) and inside(kind, (origin + (found + 5e-3) * direction)[None]).item()
            assert not chord
    assert hits > 30


def test_closed_forms_head_on():
    toward = [np.float32(0), np.float32(1), np.float32(0)]
    for kind in ("box", "ellipsoid", "cylinder"):
        assert float(intersect(kind, np.array([0, -5, 0]), toward)) == pytest.approx(4)
        assert np.isinf(intersect(kind, np.array([0, 5, 0]), toward))  # behind the ray
        assert np.isinf(intersect(kind, np.array([1.01, -5, 0]), toward))  # beside it


def test_casting_within_screen_windows_equals_casting_every_ray():
    rng = np.random.default_rng(5)
    camera = Intrinsics(fx=40, fy=40, cx=23.5, cy=17.5, width=48, height=36)
    shapes = [
        shape(kind, at=tuple(rng.uniform(-2, 2, 3)), size=tuple(rng.uniform(0.2, 1.5, 3)), material=PLAIN,
              yaw=rng.uniform(0, 6), tilt=rng.uniform(0, 1))
        for kind in ("box", "ellipsoid", "cylinder") * 5
    ]  # fmt: skip
    pose = np.eye(4)
    pose[:3, 3] = [0.3, -0.2, -4]
    hits = cast(shapes, pose_c2w=pose, intrinsics=camera)
    v, u = np.mgrid[:36, :48]
    rays = np.stack([(u - camera.cx) / 40, (v - camera.cy) / 40, np.ones(u.shape)], axis=2)
    every = np.stack(
        [
            intersect(
                item.kind,
                (item.rotation.T @ (pose[:3, 3] - item.centre)) / item.half,
                list(np.moveaxis((rays @ item.rotation) / item.half, 2, 0).astype(np.float32)),
            )
            for item in shapes
        ]
    )
    nearest = every.min(axis=0)
    assert np.isfinite(nearest).sum() > 100
    np.testing.assert_allclose(hits.depth_m, nearest, rtol=1e-3)
    seen = np.isfinite(nearest)
    assert np.mean(hits.shape[seen] == every.argmin(axis=0)[seen]) > 0.995
    assert (hits.shape[~seen] == -1).all()


@pytest.mark.parametrize("pixel_m", [0.0005, 0.002, 0.004])
def test_fine_patterns_share_mean_and_variance_but_not_their_look(pixel_m):
    period, side = 0.02, 0.84  # 42 periods, 30 of the checker's; nearly whole ones of the others
    rng = np.random.default_rng(0)
    points = rng.uniform(0, side, (200_000, 2)).astype(np.float32)
    width = np.full(len(points), pixel_m, dtype=np.float32)
    values = {kind: fine(kind, points, period_m=period, pixel_m=width) for kind in FINE_KINDS}
    for value in values.values():
        assert abs(value.mean()) < 0.03
        assert value.std() == pytest.approx(1, abs=0.08)
    for a, b in combinations(FINE_KINDS, 2):
        assert abs(np.corrcoef(values[a], values[b])[0, 1]) < 0.5


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_cut_panel_is_tiled_exactly_by_things_that_points_can_find(count):
    for seed in range(60):
        rects = cut(np.random.default_rng(seed), count, width=1.2, height=0.8)
        area = sum((right - left) * (high - low) for left, right, low, high in rects)
        assert len(rects) == count
        assert area == pytest.approx(1.2 * 0.8)
        assert min(min(right - left, high - low) for left, right, low, high in rects) >= 0.17
        assert max((right - left) * (high - low) for left, right, low, high in rects) <= 1.2 * 0.8


def test_things_of_a_group_differ_only_in_texture_and_touch_in_a_plane():
    for seed in range(40):
        things = panel(np.random.default_rng(seed), count=3, group=1).things
        parts = [thing.shapes[0] for thing in things]
        assert len({part.material.pattern for part in parts}) == 3
        assert len({(part.material.colour, part.material.contrast, part.material.period_m) for part in parts}) == 1
        assert parts[0].material.period_m * 1.4 < 0.04
        corners = np.stack([part.corners() for part in parts])
        flat = np.ptp(corners, axis=(0, 1)).argmin()  # the axis across which they are one layer
        assert np.ptp(corners[..., flat].max(axis=1)) == pytest.approx(0, abs=1e-9)
        boxes = [(c.min(axis=0) - 1e-6, c.max(axis=0) + 1e-6) for c in corners]
        touching = [bool(((a[0] <= b[1]) & (b[0] <= a[1])).all()) for a, b in combinations(boxes, 2)]
        assert sum(touching) >= 2


def test_rooms_have_8_to_20_things_of_many_classes_and_the_stated_share_in_groups():
    rooms = [furnish(np.random.default_rng(seed), texture_share=0.4) for seed in range(40)]
    counts = [len(room.things) - SHELL for room in rooms]
    assert min(counts) >= MIN_THINGS
    assert max(counts) <= MAX_THINGS
    names = {thing.name for room in rooms for thing in room.things}
    assert len(names) >= 20
    assert names <= set(CLASS_NAMES)
    grouped = sum(thing.group > 0 for room in rooms for thing in room.things)
    assert grouped / sum(counts) == pytest.approx(0.4, abs=0.06)
    none = furnish(np.random.default_rng(0), texture_share=0.0)
    assert all(thing.group == 0 for thing in none.things)


def test_superpoints_see_texture_where_mean_colour_is_one():
    v, u = np.mgrid[:240, :320]
    stripes = np.where(u < 160, (u // 4) % 2, (v // 4) % 2) * 80 + 80
    colour = np.repeat(stripes[..., None], 3, axis=2).astype(np.uint8)
    depth = np.full((240, 320), 2000, dtype=np.uint16)
    half = Intrinsics(fx=289, fy=289, cx=159.5, cy=119.5, width=320, height=240)
    segments = oversegment(colour, depth, intrinsics=half)
    left = np.bincount(segments[:, :160].ravel(), minlength=segments.max() + 1)
    total = np.bincount(segments.ravel())
    pure = np.maximum(left, total - left).sum() / total.sum()
    assert pure > 0.97
    assert segments.shape == (240, 320)


def test_files_have_the_published_format(tiny_dataset):
    root, frame_id = tiny_dataset.root, tiny_dataset.train.ids[1]
    assert frame_id == "scene9000_00_200"
    sizes = {"points": 480_000, "super_points": 160_000, "instance_mask": 160_000, "semantic_mask": 160_000}
    for kind, size in sizes.items():
        assert (root / kind / f"{frame_id}.bin").stat().st_size == size
    pose = np.load(root / "pose_centered/scene9000_00/200.npy")
    assert (pose.dtype, pose.shape) == (np.dtype(np.float64), (4, 4))
    with Image.open(root / "2D/scene9000_00/color/200.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (640, 480))
    depth = read_image(root / "2D/scene9000_00/depth/200.png")
    assert (depth.dtype, depth.shape) == (np.dtype(np.uint16), (480, 640))
    assert 0.8 < np.mean(depth > 0) < 1
    assert np.loadtxt(root / "2D/scene9000_00/pose/200.txt").shape == (4, 4)
    assert tiny_dataset.train.infos.frames[1].image == "2D/scene9000_00/color/200.jpg"
    assert len(tiny_dataset.train.infos.categories) == 198


def test_points_are_pixels_centred_on_all_valid_points(tiny_dataset):
    frame, image = tiny_dataset.train.frame(0), tiny_dataset.train.image(0)
    seen = project(frame.points[:, :3], pose_c2w=frame.pose_c2w, intrinsics=frame.intrinsics)
    assert seen.valid.all()
    assert np.abs(seen.uv - np.round(seen.uv)).max() < 0.05
    u, v = np.round(seen.uv).astype(int).T
    assert len(set(zip(u, v, strict=True))) == 20_000  # drawn without replacement
    assert np.array_equal(image[v, u], frame.points[:, 3:])
    assert np.abs(frame.points[:, :3].mean(axis=0)).max() < 0.05
    raw = np.loadtxt(tiny_dataset.root / "2D/scene9000_00/pose/0.txt")
    assert np.allclose(raw[:3, :3], frame.pose_c2w[:3, :3], atol=1e-8)
    assert frame.pose_c2w[2, 1] < 0  # the image's down points down: +z is up


def test_floor_and_chair_have_their_ids_of_the_disk(tiny_dataset):
    frame = tiny_dataset.train.frame(0)
    lowest = frame.points[:, 2] < np.quantile(frame.points[:, 2], 0.02)
    assert np.bincount(frame.semantic_ids[lowest]).argmax() == 3
    assert raw_id_on_disk("chair") == 2


def test_every_frame_shows_three_things_and_names_its_texture_only_ones(tiny_dataset):
    manifest = json.loads((tiny_dataset.root / "manifest.json").read_text())
    for frames in (tiny_dataset.train, tiny_dataset.val):
        for index, frame_id in enumerate(frames.ids):
            frame, stated = frames.frame(index), manifest["frames"][frame_id]
            sizes = np.bincount(frame.instance_ids)
            things = {int(i): v for i, v in stated["instances"].items()}
            assert all(sizes[i] == thing["points"] for i, thing in things.items())
            assert sum(sizes[i] >= 100 for i, t in things.items() if t["name"] not in ("wall", "floor")) >= 3
            assert all(sizes[i] >= 100 for i in stated["texture_ids"])
            assert 60 <= frame.superpoints.max() + 1 <= 150


def test_the_same_entry_gives_the_same_bytes_whatever_the_workers(tmp_path):
    entry = SynthRoomsEntry(
        kind="synthrooms",
        seed=4,
        train=SplitEntry(scenes=1, frames=1),
        val=SplitEntry(scenes=1, frames=1),
        texture_share=0.4,
    )
    make(entry, tmp_path / "one", workers=1, progress=silent)
    make(entry, tmp_path / "two", workers=2, progress=silent)
    assert content_digest(tmp_path / "one") == content_digest(tmp_path / "two")
    assert (tmp_path / "one/manifest.json").read_text() == (tmp_path / "two/manifest.json").read_text()
    with pytest.raises(DitrError, match="already exists"):
        make(entry, tmp_path / "one", workers=1, progress=silent)


def test_turning_about_z_is_counter_clockwise():
    np.testing.assert_allclose(rotation_z(np.pi / 2) @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def test_half_resolution_matches_the_full_image_size():
    colour = np.zeros((480, 640, 3), dtype=np.uint8)
    depth = np.full((480, 640), 1500, dtype=np.uint16)
    depth[:100] = 0
    segments = oversegment(colour, depth, intrinsics=SCANNET_SV_INTRINSICS)
    assert segments.shape == (480, 640)
    assert len(np.unique(segments)) > 50


def test_a_carried_camera_moves_smoothly_through_one_room_whose_instances_keep_their_ids(tmp_path):
    """Points that two frames have in common in the world are of the same thing in both."""
    split = SplitEntry(scenes=1, frames=5)
    entry = SynthRoomsEntry(
        kind="synthrooms", seed=3, first_scene=5000, train=SplitEntry(scenes=1, frames=1), val=split, texture_share=0.4,
        camera="path",
    )  # fmt: skip
    make(entry, tmp_path / "rooms", workers=1, progress=silent)
    frames = open_folder(tmp_path / "rooms", name="rooms").val
    worlds, things, poses = [], [], []
    for index in range(len(frames)):
        frame, shift = frames.frame(index), frames.shift_to_world(index)
        worlds.append(frame.points[:, :3] + shift)
        things.append(frame.instance_ids)
        poses.append(frame.pose_c2w[:3] + np.append(np.zeros((3, 3)), shift[:, None], axis=1))
    steps = [np.linalg.norm(b[:, 3] - a[:, 3]) for a, b in pairwise(poses)]
    turns = [np.arccos(np.clip(a[:, 2] @ b[:, 2], -1, 1)) for a, b in pairwise(poses)]
    assert 0.8 < np.linalg.norm(poses[-1][:, 3] - poses[0][:, 3]) < 2.2
    assert 0 < max(steps) < 0.9
    assert 0 < max(turns) < 0.8
    assert steps[0] < max(steps) / 1.5, "slow at its ends"
    for (a, of_a), (b, of_b) in pairwise(zip(worlds, things, strict=True)):
        distance, nearest = cKDTree(b).query(a)
        near = distance < 0.01
        assert near.sum() > 1000
        assert np.mean(of_a[near] == of_b[nearest[near]]) > 0.97


def test_sets_of_before_carried_cameras_stay_what_they_are():
    tiny = Registry().dataset("synthrooms_tiny")
    assert isinstance(tiny, SynthRoomsEntry)
    assert locate_dataset("synthrooms_tiny", tiny).name == "synthrooms_tiny-96cf1d145be4"
    carried = tiny.model_copy(update={"camera": "path"})
    assert locate_dataset("synthrooms_tiny", carried) != locate_dataset("synthrooms_tiny", tiny)
