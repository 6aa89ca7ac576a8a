from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from typer.testing import CliRunner

from ditr.captures.prepare import Preparation
from ditr.captures.superpoints import UNCOVERED, group_points
from ditr.cli.data_remove import _made
from ditr.cli.main import app
from ditr.data.dataset import open_folder
from ditr.data.prepared import PREPARED
from ditr.data_check.check import check_dataset
from ditr.errors import DitrError
from ditr.geometry.camera import SCANNET_SV_INTRINSICS, project
from ditr.scannet.mesh import read_vertices
from ditr.scannet.prepare import ScanNetSettings, prepare_scans
from ditr.scannet.scan import NEAR_M, read_label_map, read_scan
from ditr.scannet.scene_text import read_depth_intrinsics
from ditr.scannet.splits import listed_frames
from tests.reference.scannet_raw import (
    K_AVERAGE,
    K_OWN,
    LABELS,
    THINGS,
    RawScan,
    pose_text,
    write_meta,
    write_ply,
    write_scan,
)

TRAIN, VAL = "scene0001_00", "scene0002_01"
FRAMES = [f"{TRAIN}_0", f"{TRAIN}_200", f"{VAL}_0", f"{VAL}_200"]
KINDS = ("points", "super_points", "instance_mask", "semantic_mask")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, RawScan]]:
    root = tmp_path_factory.mktemp("raw")
    write_meta(root, train=[TRAIN], val=[VAL])
    return root, {
        scene: write_scan(root, scene, seed=seed, numbers=(0, 20, 200)) for seed, scene in ((1, TRAIN), (2, VAL))
    }


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared")
    done = prepare(raw[0], out, settings=settings(raw[0]), workers=1)
    assert (len(done.made), done.kept, dict(done.skipped), dict(done.failed)) == (4, (), {}, {})
    return out


@pytest.fixture
def source(raw, tmp_path: Path) -> Path:
    """A copy of the raw files to damage."""
    return Path(shutil.copytree(raw[0], tmp_path / "source"))


def settings(root: Path, *, seed: int = 0, superpoints: str = "masks", intrinsics: str = "average") -> ScanNetSettings:
    return ScanNetSettings(
        seed=seed,
        superpoints=superpoints,
        masks=root / "masks" if superpoints == "masks" else None,
        intrinsics=intrinsics,
        camera=SCANNET_SV_INTRINSICS,
    )


def prepare(root: Path, out: Path, *, settings: ScanNetSettings, workers: int) -> Preparation:
    return prepare_scans(root, out, settings=settings, workers=workers)[0]


def stored(root: Path, frame: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    columns = [
        np.fromfile(root / kind / f"{frame}.bin", np.float32 if kind == "points" else np.int64) for kind in KINDS
    ]
    scene, number = frame[:12], frame[13:]
    return columns[0].reshape(-1, 6), *columns[1:], np.load(root / "pose_centered" / scene / f"{number}.npy")


def made_files(root: Path) -> dict[str, bytes]:
    folders = (*KINDS, "pose_centered", "intrinsics")
    return {str(p.relative_to(root)): p.read_bytes() for f in folders for p in (root / f).rglob("*") if p.is_file()}


def pixels_of(points: np.ndarray, pose: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """u, v and depth of stored points; they are pixels, so that u and v are whole."""
    camera = (
        np.concatenate([points[:, :3].astype(np.float64), np.ones((len(points), 1))], axis=1) @ np.linalg.inv(pose).T
    )
    image = camera[:, :3] @ K.T
    u, v = image[:, 0] / image[:, 2], image[:, 1] / image[:, 2]
    assert max(np.abs(u - u.round()).max(), np.abs(v - v.round()).max()) < 0.01
    return u.round().astype(int), v.round().astype(int), camera[:, 2]


@pytest.mark.parametrize("frame", [FRAMES[0], FRAMES[3]])
def test_a_frame_is_what_the_protocol_says(raw, prepared, frame):
    root, scan = raw[0], raw[1][frame[:12]]
    scene, number = frame[:12], frame[13:]
    points, _, instances, semantics, pose = stored(prepared, frame)
    assert points.shape == (20_000, 6)
    assert pose.dtype == np.float64
    depth = np.array(Image.open(root / "2D" / scene / "depth" / f"{number}.png"))
    colour = np.array(Image.open(root / "2D" / scene / "color" / f"{number}.jpg"))
    u, v, z = pixels_of(points, pose, K_AVERAGE)
    assert len(set(zip(u.tolist(), v.tolist(), strict=True))) == 20_000
    np.testing.assert_array_equal(colour[v, u], points[:, 3:])
    np.testing.assert_allclose(z * 1000, depth[v, u], atol=0.01)

    raw_pose = scan.poses[int(number)]
    total, count = np.zeros(3), 0
    for row in range(480):
        columns = np.flatnonzero(depth[row])
        ray = np.linalg.inv(K_AVERAGE) @ np.stack([columns, np.full(len(columns), row), np.ones(len(columns))])
        camera = ray * (depth[row, columns] / 1000)
        total += (raw_pose[:3, :3] @ camera + raw_pose[:3, 3:]).sum(axis=1)
        count += len(columns)
    np.testing.assert_allclose(pose[:3, 3], raw_pose[:3, 3] - total / count, atol=1e-9)
    np.testing.assert_array_equal(pose[:3, :3], raw_pose[:3, :3])

    world = np.array([(raw_pose @ np.append(np.linalg.inv(K_AVERAGE) @ (a, b, 1) * (depth[b, a] / 1000), 1))[:3]
                      for a, b in zip(u, v, strict=True)])  # fmt: skip
    aligned = world @ scan.axis_align[:3, :3].T + scan.axis_align[:3, 3]
    vertices = scan.raw_vertices.astype(np.float64) @ scan.axis_align[:3, :3].T + scan.axis_align[:3, 3]
    boxes = {}
    for instance in scan.label_of_instance:
        own = vertices[scan.instance_of_vertex == instance]
        boxes[instance] = own.min(axis=0), own.max(axis=0)
    zeroed = 0
    nearest = [((vertices - point) ** 2).sum(axis=1).argmin() for point in aligned[:4000]]
    for index, (point, vertex) in enumerate(zip(aligned, nearest, strict=False)):
        instance = scan.instance_of_vertex[vertex]
        if instance:
            low, high = boxes[instance]
            outside = any(point[axis] < low[axis] - 0.05 or point[axis] > high[axis] + 0.05 for axis in range(3))
            zeroed += outside
            instance = 0 if outside else instance
        assert instances[index] == instance
        assert semantics[index] == scan.label_of_instance.get(instance, 0)
    assert zeroed > 20  # the thing that the mesh lacks
    assert set(np.unique(instances)) >= {0, 1, 2, 5}


def test_superpoints_follow_the_masks_and_cluster_what_they_leave(raw, prepared):
    for frame in FRAMES:
        points, superpoints, _, _, pose = stored(prepared, frame)
        u, v, _ = pixels_of(points, pose, K_AVERAGE)
        masks = np.array(Image.open(raw[0] / "masks" / frame[:12] / f"{frame[13:]}.png"))[v, u]
        np.testing.assert_array_equal(np.unique(superpoints), np.arange(superpoints.max() + 1))
        pairs = {(mask, group) for mask, group in zip(masks.tolist(), superpoints.tolist(), strict=True) if mask}
        covered = {group for _, group in pairs}
        assert len(pairs) == len(covered) == len({mask for mask, _ in pairs})
        left = set(superpoints[masks == 0].tolist())
        assert not left & covered
        assert 1 < len(left) <= 10


def test_left_over_points_are_clustered_by_colour():
    rng = np.random.default_rng(0)
    blob = np.repeat(np.arange(10), 30)
    colours = np.stack([blob * 25.0, 255 - blob * 25, blob * 10], axis=1)
    xyzrgb = np.concatenate([rng.uniform(-3, 3, (300, 3)), colours], axis=1)
    segments = np.concatenate([np.full(300, UNCOVERED), [4, 4, 90]])
    everything = np.concatenate([xyzrgb, np.zeros((3, 6))])
    groups = group_points(segments, everything, rng=np.random.default_rng(1))
    assert len({*zip(blob.tolist(), groups[:300].tolist(), strict=True)}) == 10
    assert sorted(set(groups.tolist())) == list(range(12))
    assert groups[300] == groups[301] != groups[302]
    few = group_points(np.array([5] * 3 + [UNCOVERED] * 9), everything[:12], rng=np.random.default_rng(1))
    assert few.tolist() == [0] * 3 + [1] * 9
    none = group_points(np.array([7, 3, 7]), everything[:3], rng=np.random.default_rng(1))
    assert none.tolist() == [1, 0, 1]
    all_alike = group_points(np.full(50, UNCOVERED), np.ones((50, 6)), rng=np.random.default_rng(1))
    assert set(all_alike.tolist()) == {0}


def test_the_folder_opens_and_passes_the_check(prepared):
    dataset = open_folder(prepared, name="mine")
    assert (dataset.train.ids, dataset.val.ids) == (tuple(FRAMES[:2]), tuple(FRAMES[2:]))
    assert check_dataset(dataset).problems == ()
    frame = dataset.train.frame(1)
    seen = project(frame.points[:, :3], pose_c2w=frame.pose_c2w, intrinsics=frame.intrinsics)
    assert seen.valid.all()
    assert np.abs(seen.uv - seen.uv.round()).max() < 0.01


def test_bytes_do_not_depend_on_workers_or_on_where_it_stopped(raw, prepared, tmp_path):
    expected = made_files(prepared)
    assert len(expected) == 20
    two = prepare(raw[0], tmp_path, settings=settings(raw[0]), workers=2)
    assert len(two.made) == 4
    assert made_files(tmp_path) == expected
    pickles = {path.name: path.read_bytes() for path in tmp_path.glob("*.pkl")}
    # what a kill leaves: no pose yet, a file beside its place, a file that the disk lost a part of
    (tmp_path / "pose_centered" / TRAIN / "0.npy").unlink()
    (tmp_path / "points" / f".{FRAMES[0]}.bin.123.part").write_bytes(b"half")
    with (tmp_path / "semantic_mask" / f"{FRAMES[3]}.bin").open("r+b") as file:
        file.truncate(100)
    again = prepare(raw[0], tmp_path, settings=settings(raw[0]), workers=1)
    assert (len(again.made), len(again.kept)) == (2, 2)
    assert made_files(tmp_path) == expected
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.pkl")} == pickles


def test_each_frame_draws_its_own_points(source, prepared, tmp_path):
    for kind, end in (("color", "jpg"), ("depth", "png"), ("pose", "txt")):
        folder = source / "2D" / TRAIN / kind
        shutil.copy(folder / f"0.{end}", folder / f"200.{end}")
    prepare(source, tmp_path / "out", settings=settings(source), workers=1)
    first, second = (stored(tmp_path / "out", frame)[0] for frame in FRAMES[:2])
    np.testing.assert_array_equal(first, stored(prepared, FRAMES[0])[0])
    assert np.mean(first == second) < 0.5


def test_another_seed_draws_other_points_of_the_same_world(raw, prepared, tmp_path):
    prepare(raw[0], tmp_path, settings=settings(raw[0], seed=1), workers=1)
    points, _, _, _, pose = stored(tmp_path, FRAMES[0])
    before, _, _, _, pose_before = stored(prepared, FRAMES[0])
    assert not np.array_equal(points, before)
    np.testing.assert_array_equal(pose, pose_before)


def test_what_cannot_be_made_is_counted_and_named_and_the_rest_is_made(source, prepared, tmp_path):
    depth = source / "2D" / TRAIN / "depth" / "0.png"
    whole = depth.read_bytes()
    depth.write_bytes(whole[: len(whole) // 2])
    invalid = np.full((4, 4), -np.inf)
    (source / "2D" / VAL / "pose" / "0.txt").write_text(pose_text(invalid))
    out = tmp_path / "out"
    done = prepare(source, out, settings=settings(source), workers=2)
    assert (len(done.made), set(done.failed), dict(done.skipped)) == (
        2,
        {FRAMES[0]},
        {FRAMES[2]: "the pose is not finite"},
    )
    assert "depth/0.png" in done.failed[FRAMES[0]]
    assert json.loads((out / PREPARED).read_text())["failed"] == dict(done.failed)
    assert open_folder(out, name="rest").train.ids == (FRAMES[1],)
    depth.write_bytes(whole)
    repaired = prepare(source, out, settings=settings(source), workers=1)
    assert (len(repaired.made), len(repaired.kept), len(repaired.failed), len(repaired.skipped)) == (1, 2, 0, 1)
    assert made_files(out).items() <= made_files(prepared).items()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: (root / "masks" / TRAIN / "0.png").unlink(), "masks/scene0001_00/0.png"),
        (lambda root: Image.new("RGB", (640, 480)).save(root / "masks" / TRAIN / "0.png"), "mask image"),
        (lambda root: (root / "2D" / TRAIN / "color" / "0.jpg").unlink(), "color/0.jpg"),
        (lambda root: Image.new("RGB", (1296, 968)).save(root / "2D" / TRAIN / "color" / "0.jpg"), "colour image"),
        (lambda root: Image.new("L", (640, 480)).save(root / "2D" / TRAIN / "depth" / "0.png"), "no pixel has depth"),
        (lambda root: (root / "2D" / TRAIN / "pose" / "0.txt").write_text("1 0 0"), "3 numbers"),
        (lambda root: os.truncate(root / "3D" / TRAIN / f"{TRAIN}_vh_clean_2.ply", 5000), "vertices"),
        (lambda root: (root / "3D" / TRAIN / f"{TRAIN}.txt").write_text("fx_depth = 1\n"), "axisAlignment"),
        (lambda root: (root / "3D" / TRAIN / f"{TRAIN}.aggregation.json").write_text("{"), "JSON"),
        (lambda root: relabel(root, "spaceship"), "'spaceship'"),
        (lambda root: number_object(root, 10**20), "an objectId 1e+20, allowed are 0 to 99,999"),
        (lambda root: number_object(root, -1), "an objectId -1, allowed are 0 to 99,999"),
        (lambda root: shorten_segments(root), "segment ids for"),
        (lambda root: name_other_segments(root), "14 of 15 segments that it names are not in"),
        (lambda root: move_camera(root, lambda pose: pose @ np.diag([1.0, -1, -1, 1])), "OpenGL's"),
        (lambda root: move_camera(root, lambda pose: pose @ np.diag([1.0, -1, -1, 1])), "third column of the pose"),
        (lambda root: move_camera(root, np.linalg.inv), "poses go the other way than was said"),
        (lambda root: move_camera(root, np.linalg.inv), "fix: write the inverse of each matrix into the pose files"),
        (lambda root: scale_depth(root, 5), "depth is 5 times too large"),
        (lambda root: scale_depth(root, 5), "fix: divide the values of the depth images by 5"),
        (lambda root: scale_depth(root, 0.2), "depth is 5 times too small"),
    ],
)
def test_each_damage_is_said_by_name(source, damage, said, tmp_path):
    write_meta(source, train=[FRAMES[0]], val=[FRAMES[2]], kind="sv_")
    damage(source)
    with pytest.raises(DitrError, match="none of 1 frames of train could be made") as error:
        prepare(source, tmp_path / "out", settings=settings(source), workers=1)
    assert said in error.value.what
    manifest = json.loads((tmp_path / "out" / PREPARED).read_text())
    assert said in str({**manifest["failed"], **manifest["skipped"]}[FRAMES[0]])
    assert manifest["frames"] == 1


def relabel(root: Path, label: str) -> None:
    path = root / "3D" / TRAIN / f"{TRAIN}.aggregation.json"
    path.write_text(path.read_text().replace('"wall"', f'"{label}"'))


def number_object(root: Path, number: int) -> None:
    path = root / "3D" / TRAIN / f"{TRAIN}.aggregation.json"
    content = json.loads(path.read_text())
    content["segGroups"][0]["objectId"] = number
    path.write_text(json.dumps(content))


def name_other_segments(root: Path) -> None:
    """As the aggregation of the mesh of full resolution does."""
    path = root / "3D" / TRAIN / f"{TRAIN}.aggregation.json"
    content = json.loads(path.read_text())
    for group in content["segGroups"]:
        group["segments"] = [segment + 500 * (segment > 0) for segment in group["segments"]]
    path.write_text(json.dumps(content))


def move_camera(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = root / "2D" / TRAIN / "pose" / "0.txt"
    path.write_text(pose_text(change(np.array(path.read_text().split(), dtype=np.float64).reshape(4, 4))))


def scale_depth(root: Path, factor: float) -> None:
    path = root / "2D" / TRAIN / "depth" / "0.png"
    Image.fromarray((np.array(Image.open(path)) * factor).astype(np.uint16)).save(path)


@pytest.mark.parametrize("name", ["200.JPG", "200.png", "000200.jpg"])
def test_no_frame_is_left_out_for_its_name_without_a_word(source, name, tmp_path):
    (source / "2D" / TRAIN / "color" / "200.jpg").rename(source / "2D" / TRAIN / "color" / name)
    with pytest.raises(DitrError, match=rf"1 files are not named .* the first is {name}"):
        prepare(source, tmp_path / "out", settings=settings(source), workers=1)


def test_a_scan_without_a_frame_of_the_list_is_told(source, tmp_path):
    for number in (0, 200):
        path = source / "2D" / TRAIN / "color" / f"{number}.jpg"
        path.rename(path.with_name(f"{number + 7}.jpg"))
    with pytest.raises(DitrError, match=r"holds 3 files, none of them <multiple of 200>\.jpg"):
        prepare(source, tmp_path / "out", settings=settings(source), workers=1)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_text_files_of_windows_are_read(raw, source, encoding, tmp_path, prepared):
    texts = [*(source / "meta_data").iterdir(), *(source / "2D").rglob("*.txt"), *(source / "3D").rglob("*.txt")]
    for path in texts:
        path.write_text(path.read_text().replace("\n", "\r\n"), encoding=encoding, newline="")
    prepare(source, tmp_path / "out", settings=settings(source), workers=1)
    assert made_files(tmp_path / "out") == made_files(prepared)


def test_a_frame_that_was_left_out_for_its_pose_stops_no_run(source, tmp_path):
    write_meta(source, train=FRAMES[:2], val=FRAMES[2:], kind="sv_")
    move_camera(source, np.zeros_like)
    done = prepare(source, tmp_path / "out", settings=settings(source), workers=1)
    assert dict(done.skipped) == {FRAMES[0]: "the pose is not rigid"}
    report = check_dataset(open_folder(tmp_path / "out", name="scans"))
    assert (report.sound, report.broken) == (True, {})
    assert report.statistics["train frames that were left out when prepared"] == 1
    (tmp_path / "out" / PREPARED).write_text("{")
    with pytest.raises(DitrError, match="is damaged"):
        check_dataset(open_folder(tmp_path / "out", name="scans"))


def shorten_segments(root: Path) -> None:
    path = root / "3D" / TRAIN / f"{TRAIN}_vh_clean_2.0.010000.segs.json"
    path.write_text(json.dumps({"segIndices": json.loads(path.read_text())["segIndices"][:-1]}))


def test_few_depth_pixels_are_drawn_with_replacement(source, tmp_path):
    path = source / "2D" / TRAIN / "depth" / "0.png"
    depth = np.array(Image.open(path))
    window = np.zeros_like(depth)
    window[300:340, 300:400] = depth[300:340, 300:400]
    Image.fromarray(window).save(path)
    prepare(source, tmp_path / "out", settings=settings(source), workers=1)
    points, _, _, _, pose = stored(tmp_path / "out", FRAMES[0])
    u, v, _ = pixels_of(points, pose, K_AVERAGE)
    assert len(points) == 20_000
    assert 3900 < len(set(zip(u.tolist(), v.tolist(), strict=True))) <= 4000
    assert (u.min(), u.max(), v.min(), v.max()) == (300, 399, 300, 339)


def test_a_scans_own_camera_is_used_and_left_for_the_reader(tmp_path):
    write_meta(tmp_path, train=[TRAIN], val=[VAL])
    for scene in (TRAIN, VAL):
        write_scan(tmp_path, scene, seed=5, numbers=(0,), K=K_OWN)
    own = settings(tmp_path, superpoints="oversegmentation", intrinsics="scene")
    prepare(tmp_path, tmp_path, settings=own, workers=1)
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "intrinsics" / f"{TRAIN}.txt"), K_OWN)
    points, superpoints, instances, _, pose = stored(tmp_path, f"{TRAIN}_0")
    pixels_of(points, pose, K_OWN)
    assert superpoints.max() > 30
    dataset = open_folder(tmp_path, name="own")
    assert dataset.intrinsics == "a file for each of 2 scenes"
    assert check_dataset(dataset).problems == ()
    with pytest.raises(AssertionError):
        pixels_of(points, pose, K_AVERAGE)
    purity = sum(np.bincount(instances[superpoints == group]).max() for group in range(superpoints.max() + 1)) / 20_000
    assert purity > 0.8


def test_depth_intrinsics_are_scaled_about_the_images_corner(raw):
    half = read_depth_intrinsics(raw[0] / "3D" / TRAIN / f"{TRAIN}.txt", width=320, height=240)
    assert (half.fx, half.fy) == (K_OWN[0, 0] / 2, K_OWN[1, 1] / 2)
    # the pixel (0, 0) of the half image has the middle of the old pixels 0 and 1 in it
    assert half.cx * 2 + 0.5 == K_OWN[0, 2]


def test_one_folder_has_one_way_of_preparation(raw, prepared, tmp_path):
    changes = ({"seed": 3}, {"intrinsics": "scene"}, {"superpoints": "oversegmentation"})
    for other in (settings(raw[0], **change) for change in changes):
        with pytest.raises(DitrError, match="other settings"):
            prepare(raw[0], prepared, settings=other, workers=1)
    foreign = tmp_path / "foreign"
    (foreign / "points").mkdir(parents=True)
    (foreign / "points" / f"{FRAMES[0]}.bin").write_bytes(b"")
    with pytest.raises(DitrError, match="something else made them"):
        prepare(raw[0], foreign, settings=settings(raw[0]), workers=1)
    with FileLock(prepared / ".prepare.lock"), pytest.raises(DitrError, match="another preparation"):
        prepare(raw[0], prepared, settings=settings(raw[0]), workers=1)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(raw[0] / "meta_data", elsewhere / "meta_data")
    with pytest.raises(DitrError, match="is not the meta_data of"):
        prepare(raw[0], elsewhere, settings=settings(raw[0]), workers=1)


def test_of_two_objects_that_claim_a_segment_the_later_one_has_it(raw):
    root, scans = raw
    scan = read_scan(root, TRAIN, label_map=read_label_map(root / "meta_data" / "scannetv2-labels.combined.tsv"))
    np.testing.assert_array_equal(scan.instance_of_vertex, scans[TRAIN].instance_of_vertex)
    chairs = [thing.object_id + 1 for thing in THINGS if thing.label == "chair"]
    assert scan.raw_id_of_instance[chairs].tolist() == [LABELS["chair"]] * 2


def test_meshes_of_other_kinds_are_refused(tmp_path):
    xyz = np.arange(12, dtype=np.float32).reshape(4, 3)
    path = tmp_path / "mesh.ply"
    write_ply(path, xyz)
    np.testing.assert_array_equal(read_vertices(path), xyz)
    whole = path.read_bytes()
    for old, new, said in (
        (b"binary_little_endian", b"ascii", "binary little-endian"),
        (b"ply\n", b"obj\n", "no PLY header"),
        (b"property float x\n", b"property float q\n", "no x, y and z"),
        (b"element vertex 4", b"element vertex 9", "ends after"),
        (xyz[1, 1].tobytes(), np.float32(np.nan).tobytes(), "not finite"),
    ):
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(DitrError, match=said):
            read_vertices(path)


def test_lists_of_frames_come_before_lists_of_scans(source):
    assert listed_frames(source) == {"train": tuple(FRAMES[:2]), "val": tuple(FRAMES[2:])}
    write_meta(source, train=[FRAMES[1], FRAMES[0]], val=[FRAMES[3]], kind="sv_")
    assert listed_frames(source) == {"train": (FRAMES[1], FRAMES[0]), "val": (FRAMES[3],)}
    write_meta(source, train=[FRAMES[1]], val=[FRAMES[1]], kind="sv_")
    with pytest.raises(DitrError, match="in both splits"):
        listed_frames(source)


def ditr(*arguments: object):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def test_the_command_prepares_checks_and_exits_1_where_a_frame_failed(source, tmp_path):
    (source / "2D" / VAL / "depth" / "0.png").write_bytes(b"no png")
    out = tmp_path / "out"
    first = ditr("import", "scannet", source, "scannet200_sv", "--out", out, "--workers", 1)
    assert first.exit_code == 1, first.output
    assert "3 made, 0 kept, 0 skipped, 1 failed" in first.output
    assert f"failed {VAL}_0: " in first.output
    assert "val: 1 frames in scannet200_sv_oneformer3d_infos_val.pkl, left out of the list: 1" in first.output
    assert "superpoint purity" in first.output
    of_mesh = re.search(r"from ([\d.]+) to ([\d.]+) mm in all, the most in (scene\w+)", first.output)
    assert of_mesh is not None
    assert 0 < float(of_mesh[1]) <= float(of_mesh[2]) < 1000 * NEAR_M, "they are where the mesh is"
    assert of_mesh[3] in FRAMES
    no_masks = ditr("import", "scannet", source, "scannet200_sv", "--masks", tmp_path / "none")
    assert isinstance(no_masks.exception, DitrError)
    assert "--superpoints oversegmentation" in no_masks.exception.fix
    assert isinstance(ditr("import", "scannet", source, "synthrooms").exception, DitrError)
    assert ditr("import", "scannet", source, "scannet200_sv", "--every", 2).exit_code == 2


def test_masks_of_more_segments_than_a_run_reads_fail_their_frame_by_name(source, tmp_path):
    many = np.arange(80 * 60, dtype=np.uint16).reshape(60, 80).repeat(8, axis=0).repeat(8, axis=1) + 1
    mask = source / "masks" / VAL / "0.png"
    Image.fromarray(many).save(mask)
    done = prepare(source, tmp_path / "out", settings=settings(source), workers=1)
    assert list(done.failed) == [f"{VAL}_0"]
    found = re.search(
        rf"{re.escape(str(mask))}: ([\d,]+) superpoints of its points, allowed are 2,048", done.failed[f"{VAL}_0"]
    )
    assert found is not None
    assert 2_048 < int(found[1].replace(",", "")) <= 80 * 60 + 10
    assert check_dataset(open_folder(tmp_path / "out", name="scans")).broken.keys() <= {f"{VAL}_0"}


def test_an_import_into_the_source_itself_never_takes_its_images(source, tmp_path):
    prepare(source, source, settings=settings(source), workers=1)
    names = {item.path.name for item in _made(source, ("x.pkl",))}
    assert "points" in names
    assert names.isdisjoint({"2D", "3D", "meta_data"})
    prepare(source, tmp_path / "out", settings=settings(source), workers=1)
    links = [item for item in _made(tmp_path / "out", ()) if item.what == "link"]
    for item in links:
        item.remove()
    assert {item.path.name for item in links} == {"2D", "3D", "meta_data"}
    assert (source / "2D" / TRAIN / "color/0.jpg").is_file()
