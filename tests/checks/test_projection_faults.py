"""How points, pixels, maps and batches have been mismatched, or can be: each planted and caught by a named check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ditr.checks.stages import run_stage
from ditr.data import samples as samples_module
from ditr.data.augmentation import AugmentedPoints
from ditr.data.batch import Batch, Sample
from ditr.data.frame import Frame
from ditr.data.samples import SampleSet
from ditr.data.scannet_sv import FrameSet
from ditr.errors import Code, DitrError
from ditr.features.sources import FeatureSource
from ditr.features.store import FeatureStore
from ditr.geometry.camera import Intrinsics, Projection, project
from ditr.geometry.sampling import Reading, read_at
from ditr.model import esam as esam_module
from ditr.model.esam import EsamSingleView
from ditr.model.point_features import PointFeatures
from ditr.progress import silent
from ditr.spec.check_limits import ChecksSpec
from ditr.spec.models import AugmentationSpec, ImageAugmentationSpec

if TYPE_CHECKING:
    from conftest import World

Fault = Callable[["World", pytest.MonkeyPatch], None]


def failed_of(world: World, names: set[str]) -> set[str]:
    """Which of the named checks fail; those after the last of them are not made."""
    left, failed = set(names), set()
    for check in run_stage(2, world.subject(), progress=silent):
        if check.name in left:
            left.remove(check.name)
            assert check.stage == 2
            assert check.passed or check.detail
            failed |= set() if check.passed else {check.name}
        if not left:
            break
    return failed


# What the data say


def cameras(change: Callable[[Intrinsics], Intrinsics]) -> Fault:
    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        world.frames = FrameSet(world.frames.root, infos=world.frames.infos, intrinsics=change(world.frames.intrinsics))

    return fault


def poses(change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        infos = world.frames.infos
        changed = [replace(one, pose_c2w=change(one.pose_c2w)) for one in infos.frames]
        world.frames = FrameSet(
            world.frames.root, infos=replace(infos, frames=tuple(changed)), intrinsics=world.frames.intrinsics
        )

    return fault


def moved(pose: np.ndarray) -> np.ndarray:
    return pose + 0.02 * np.eye(4, k=3)


def other_axes(pose: np.ndarray) -> np.ndarray:
    """Camera that looks along -z, y up, as in graphics."""
    return np.asarray(pose @ np.diag([1.0, -1.0, -1.0, 1.0]))


def other_image(shift: int) -> Fault:
    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        image = FrameSet.image
        patch.setattr(FrameSet, "image", lambda self, index: image(self, (index + shift) % len(self)))

    return fault


def images(change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        image = FrameSet.image
        patch.setattr(FrameSet, "image", lambda self, index: change(image(self, index)).copy())

    return fault


def unreadable(kind: str) -> Fault:
    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        read = getattr(FrameSet, kind)

        def broken(self: FrameSet, index: int) -> object:
            if index == 0:
                raise DitrError("is damaged", code=Code.DATASET, where="0.bin", fix="restore it")
            return read(self, index)

        patch.setattr(FrameSet, kind, broken)

    return fault


# Samples


def projected(change: Callable[[np.ndarray, np.ndarray, Intrinsics], Projection]) -> Fault:
    """The production code's projection, as the samples call it."""

    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        def other(xyz: np.ndarray, *, pose_c2w: np.ndarray, intrinsics: Intrinsics) -> Projection:
            return change(xyz, pose_c2w, intrinsics)

        patch.setattr(samples_module, "project", other)

    return fault


def uv_of(change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    def other(xyz: np.ndarray, pose: np.ndarray, camera: Intrinsics) -> Projection:
        right = project(xyz, pose_c2w=pose, intrinsics=camera)
        return replace(right, uv=change(right.uv))

    return projected(other)


def not_inverted(xyz: np.ndarray, pose: np.ndarray, camera: Intrinsics) -> Projection:
    return project(xyz, pose_c2w=np.linalg.inv(pose), intrinsics=camera)


def of_half_image(xyz: np.ndarray, pose: np.ndarray, camera: Intrinsics) -> Projection:
    """Intrinsics of the network's input, taken for those of the image."""
    half = replace(camera, fx=camera.fx / 2, fy=camera.fy / 2, cx=camera.cx / 2, cy=camera.cy / 2)
    return project(xyz, pose_c2w=pose, intrinsics=half)


def all_valid(xyz: np.ndarray, pose: np.ndarray, camera: Intrinsics) -> Projection:
    """Points behind the camera are mirrored through it and count."""
    nothing = np.ones(len(xyz), dtype=bool)
    shifted = replace(camera, cx=camera.cx + 200)
    return replace(project(xyz, pose_c2w=pose, intrinsics=shifted), depth_ok=nothing, boundary_ok=nothing)


def samples(change: Callable[[SampleSet, int, Sample], Sample]) -> Fault:
    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        read = SampleSet.__getitem__
        patch.setattr(SampleSet, "__getitem__", lambda self, index: change(self, index, read(self, index)))

    return fault


def augmented_points_projected(of: SampleSet, index: int, sample: Sample) -> Sample:
    frame: Frame = of.frames.frame(index)
    there = project(sample.xyz.numpy(), pose_c2w=frame.pose_c2w, intrinsics=frame.intrinsics)
    uv = np.where(there.valid[:, None], there.uv, 0.0).astype(np.float32)
    return replace(sample, uv=torch.from_numpy(uv), uv_valid=torch.from_numpy(there.valid))


def only_augmented(change: Callable[[Sample], Sample]) -> Callable[[SampleSet, int, Sample], Sample]:
    return lambda of, index, sample: change(sample) if of.augmented else sample


def uv_of_other_rows(sample: Sample) -> Sample:
    return replace(sample, uv=sample.uv.roll(1, dims=0))


def without_map_extent(of: SampleSet, index: int, sample: Sample) -> Sample:
    """The padded canvas is forgotten."""
    return replace(sample, map_hw=(480, 640))


def augments(change: Callable[[AugmentedPoints, np.ndarray], AugmentedPoints]) -> Fault:
    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        right = samples_module.augment
        patch.setattr(
            samples_module, "augment", lambda xyz, *, spec, voxel_size_m, rng: change(
                right(xyz, spec=spec, voxel_size_m=voxel_size_m, rng=rng), xyz
            )
        )  # fmt: skip

    return fault


def elastic_mixes_rows(world: World, patch: pytest.MonkeyPatch) -> None:
    right = samples_module.augment

    def augment(xyz: np.ndarray, *, spec: AugmentationSpec, **named: Any) -> AugmentedPoints:
        moved = right(xyz, spec=spec, **named)
        return moved if spec.elastic is None else replace(moved, xyz=moved.xyz[::-1].copy())

    patch.setattr(samples_module, "augment", augment)


def padded(fault: Fault) -> Fault:
    """In a spec whose images are padded."""

    def both(world: World, patch: pytest.MonkeyPatch) -> None:
        world.change(resize="pad", input_size=(518, 714))
        world.extract()
        fault(world, patch)

    return both


# Reading

Sizes = tuple[Tensor, Tensor]
"""Height and width, (N,) each."""


def reads(change: Callable[[Tensor, Sizes, Sizes], Reading]) -> Fault:
    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        def other(uv: Tensor, *, grid_hw: Sizes, map_hw: Sizes, mode: str) -> Reading:
            return change(uv, grid_hw, map_hw)

        patch.setattr(esam_module, "read_at", other)

    return fault


def bilinear(uv: Tensor, grid: Sizes, covered: Sizes) -> Reading:
    return read_at(uv, grid_hw=grid, map_hw=covered, mode="bilinear")


def transposed(uv: Tensor, grid: Sizes, covered: Sizes) -> Reading:
    """Rows of the map are taken for columns."""
    right = bilinear(uv, grid, covered)
    rows, columns = (size[:, None] for size in grid)
    return replace(right, rows=right.rows % columns * rows + right.rows // columns)


def corners_aligned(uv: Tensor, grid: Sizes, covered: Sizes) -> Reading:
    """The outermost token centres lie on the outermost pixels, as ``align_corners=True`` has it."""
    scale = torch.stack([(grid[1] - 1) / (covered[1] - 1), (grid[0] - 1) / (covered[0] - 1)], dim=1)
    return read_at(uv * scale, grid_hw=grid, map_hw=grid, mode="bilinear")


def half_pixel_forgotten(uv: Tensor, grid: Sizes, covered: Sizes) -> Reading:
    return read_at(uv - (0.5 * covered[1] / grid[1])[:, None], grid_hw=grid, map_hw=covered, mode="bilinear")


def nearest_instead(uv: Tensor, grid: Sizes, covered: Sizes) -> Reading:
    return read_at(uv, grid_hw=grid, map_hw=covered, mode="nearest")


def points_of(change: Callable[[PointFeatures, Batch], PointFeatures]) -> Fault:
    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        right = EsamSingleView.read_2d

        def other(self: EsamSingleView, batch: Batch, *, statistics: dict[str, Tensor]) -> PointFeatures:
            points = right(self, batch, statistics=statistics)
            assert points is not None
            return change(points, batch)

        patch.setattr(EsamSingleView, "read_2d", other)

    return fault


def first_map_for_all(points: PointFeatures, batch: Batch) -> PointFeatures:
    tokens = batch.samples[0].tokens
    assert tokens is not None
    return replace(points, rows=points.rows % tokens[0].numel())


def nothing_but_nan(points: PointFeatures, batch: Batch) -> PointFeatures:
    return replace(points, tokens=torch.full_like(points.tokens, torch.nan))


def all_points_valid(points: PointFeatures, batch: Batch) -> PointFeatures:
    return replace(points, valid=torch.ones_like(points.valid))


def behind_camera_too(world: World, patch: pytest.MonkeyPatch) -> None:
    """A few points without a pixel, which the model reads all the same."""
    samples(lambda of, index, sample: replace(sample, uv_valid=sample.uv_valid & (torch.rand(len(sample.uv)) > 0.01)))(
        world, patch
    )
    points_of(all_points_valid)(world, patch)


# The model


def runs_as(change: Callable[[EsamSingleView, Batch, Callable[[Batch], object]], object]) -> Fault:
    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        right = EsamSingleView.forward
        patch.setattr(EsamSingleView, "forward", lambda self, batch: change(self, batch, lambda one: right(self, one)))

    return fault


def last_item_dropped(model: EsamSingleView, batch: Batch, run: Callable[[Batch], object]) -> object:
    return run(Batch(samples=batch.samples[: max(1, len(batch) - 1)]))


def items_swapped(model: EsamSingleView, batch: Batch, run: Callable[[Batch], object]) -> object:
    """Maps reach the model in another order than points."""
    tokens = [sample.tokens for sample in batch][::-1]
    return run(Batch(samples=tuple(replace(one, tokens=its) for one, its in zip(batch, tokens, strict=True))))


def normalised_over_the_batch(world: World, patch: pytest.MonkeyPatch) -> None:
    """The sparse layers use the batch's own statistics."""
    run = EsamSingleView.forward

    def forward(self: EsamSingleView, batch: Batch) -> object:
        self.backbone.train()
        return run(self, batch)

    patch.setattr(EsamSingleView, "forward", forward)


def fusion_swallowed(world: World, patch: pytest.MonkeyPatch) -> None:
    """What an empty ``except`` around the fusion leaves: the 3D-only model."""
    patch.setattr(EsamSingleView, "read_2d", lambda self, batch, *, statistics: None)


def weights_are_nan(world: World, patch: pytest.MonkeyPatch) -> None:
    model = world.build()
    assert model.bifusion is not None
    with torch.no_grad():
        model.bifusion.residual.bias[0] = float("nan")


def gate_shut(bias: float) -> Fault:
    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        model = world.build()
        assert model.bifusion is not None
        with torch.no_grad():
            list(model.bifusion.gate.parameters())[-1].fill_(bias)

    return fault


def limits(**changes: float) -> Fault:
    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        world.spec = world.spec.model_copy(update={"checks": ChecksSpec(**changes)})  # type: ignore[arg-type]

    return fault


def map_missing(world: World, patch: pytest.MonkeyPatch) -> None:
    world.store.path(world.frames.ids[0]).unlink()


def reader_gives_others(world: World, patch: pytest.MonkeyPatch) -> None:
    """Maps of another channel count than the model was built for."""
    patch.setattr(FeatureStore, "read", lambda self, frame: torch.zeros(7, 12, 16, dtype=torch.float16))


FAULTS: dict[str, tuple[Fault, str]] = {
    "poses are world to camera": (poses(np.linalg.inv), "valid_ratio uv_error_px lattice_error_px colour_error"),
    "poses are two centimetres off": (poses(moved), "uv_error_px colour_error"),
    "cameras look along -z": (poses(other_axes), "depth_ok valid_ratio"),
    "focal length two per cent off": (
        cameras(lambda one: replace(one, fx=1.02 * one.fx, fy=1.02 * one.fy)),
        "uv_error_px lattice_error_px",
    ),
    "focal length of the full photo": (
        cameras(lambda one: replace(one, fx=1170.0, fy=1170.0, cx=647.0, cy=483.0)),
        "valid_ratio boundary_ok lattice_error_px",
    ),
    "fx and fy of another aspect": (cameras(lambda one: replace(one, fy=one.fy * 968 / 960)), "uv_error_px"),
    "principal point half a pixel off": (
        cameras(lambda one: replace(one, cx=one.cx + 0.5)),
        "uv_error_px lattice_error_px",
    ),
    "principal point one pixel off": (cameras(lambda one: replace(one, cy=one.cy - 1)), "colours_in_place"),
    "the image of the next frame": (other_image(1), "colour_error augmented_colour_error"),
    "images in BGR": (images(lambda image: image[..., ::-1]), "colour_error augmented_colour_error"),
    "images mirrored": (images(lambda image: image[:, ::-1]), "colour_error"),
    "images one pixel down": (images(lambda image: np.roll(image, 1, axis=0)), "colours_in_place"),
    "points cannot be read": (unreadable("frame"), "frames_unreadable"),
    "an image cannot be read": (unreadable("image"), "frames_unreadable"),
    "poses not inverted by the projection": (projected(not_inverted), "frames_unreadable sample_uv_px"),
    "projected into the network's input": (projected(of_half_image), "sample_uv_px augmented_uv_px colour_error"),
    "points off the image are valid": (projected(all_valid), "sample_uv_px"),
    "v before u": (uv_of(lambda uv: uv[:, ::-1]), "sample_uv_px augmented_uv_px"),
    "uv half a pixel off": (uv_of(lambda uv: uv + 0.5), "sample_uv_px augmented_uv_px"),
    "uv one pixel off": (uv_of(lambda uv: uv + np.array([1, 0])), "sample_uv_px colours_in_place"),
    "augmented points are projected": (samples(augmented_points_projected), "augmented_uv_px augmented_colour_error"),
    "uv of the point before, in training": (
        samples(only_augmented(uv_of_other_rows)),
        "augmented_uv_px augmented_colour_error",
    ),
    "augmentation mixes rows": (
        augments(lambda right, raw: replace(right, xyz=right.xyz[::-1].copy())),
        "augmented_rows elastic_rows",
    ),
    "the elastic distortion mixes rows": (
        elastic_mixes_rows,
        "elastic_rows",
    ),
    "the padding is forgotten": (padded(samples(without_map_extent)), "map_extent"),
    "the reader transposes": (reads(transposed), "read_error_tokens"),
    "the reader aligns corners": (reads(corners_aligned), "read_error_tokens"),
    "the reader is half a token off": (reads(half_pixel_forgotten), "read_error_tokens"),
    "the reader takes the nearest": (reads(nearest_instead), "read_error_tokens"),
    "the first map for the whole batch": (points_of(first_map_for_all), "read_error_tokens batch_equals_single"),
    "what is read is no number": (points_of(nothing_but_nan), "read_error_tokens"),
    "points without a pixel are read": (behind_camera_too, "read_where_valid"),
    "a batch loses its last frame": (runs_as(last_item_dropped), "batch_equals_single"),
    "maps of a batch are swapped": (runs_as(items_swapped), "batch_equals_single"),
    "evaluation normalises over the batch": (normalised_over_the_batch, "batch_equals_single"),
    "the fusion is silently left out": (fusion_swallowed, "read_where_valid fusion_2d_ratio map_matters"),
    "a weight is NaN": (weights_are_nan, "forward_not_finite"),
    "only 3D goes through the gate": (gate_shut(-20), "fusion_2d_ratio fusion_3d_ratio"),
    "only 2D goes through the gate": (gate_shut(20), "fusion_2d_ratio fusion_3d_ratio"),
    "a map is missing": (map_missing, "frames_unreadable read_error_tokens forward_errors"),
    "maps of other channels": (reader_gives_others, "read_error_tokens forward_errors"),
    "too slow": (limits(max_forward_s=1e-6), "forward_s"),
    "too much memory": (limits(max_forward_mb=1.0), "forward_mb"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_caught(what: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, names = FAULTS[what]
    world.sampled = 4 if "read" in names or "missing" in what else 2
    fault(world, monkeypatch)
    assert failed_of(world, set(names.split())) == set(names.split())


# Online, where the image may be mirrored with the points


def image_stays(of: SampleSet, index: int, sample: Sample) -> Sample:
    """Mirrored pixels in an image that is not."""
    return replace(sample, image=torch.from_numpy(of.frames.image(index).copy()))


def uv_stays(of: SampleSet, index: int, sample: Sample) -> Sample:
    """The image is mirrored, the points' pixels are not."""
    frame = of.frames.frame(index)
    uv = project(frame.points[:, :3], pose_c2w=frame.pose_c2w, intrinsics=frame.intrinsics).uv.astype(np.float32)
    return replace(sample, uv=torch.from_numpy(uv))


def mirrors_always(right: AugmentedPoints, raw: np.ndarray) -> AugmentedPoints:
    return replace(right, mirrored=not right.mirrored)


def source_fails(world: World, patch: pytest.MonkeyPatch) -> None:
    def encode(self: FeatureSource, images: object) -> Tensor:
        raise DitrError("no memory left", code=Code.FEATURES, where="tiny_vit", fix="use a smaller input")

    patch.setattr(FeatureSource, "encode", encode)


ONLINE: dict[str, tuple[Fault, str]] = {
    "pixels are mirrored, the image is not": (samples(image_stays), "augmented_uv_px"),
    "the image is mirrored, pixels are not": (samples(uv_stays), "augmented_uv_px"),
    "the image is mirrored where points are not": (augments(mirrors_always), "mirrored_together"),
    "the source fails": (source_fails, "read_error_tokens forward_errors"),
}


@pytest.mark.parametrize("what", ONLINE)
def test_a_fault_of_mirroring_is_caught(what: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, names = ONLINE[what]
    world.change(augmentation=ImageAugmentationSpec())
    world.go_online()
    fault(world, monkeypatch)
    assert failed_of(world, set(names.split())) == set(names.split())


def test_one_broken_frame_leaves_the_others_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    map_missing(world, monkeypatch)
    checks = {check.name: check for check in run_stage(2, world.subject(), progress=silent)}
    assert checks["frames_unreadable"].value == 1
    assert world.frames.ids[0] in checks["frames_unreadable"].detail
    assert checks["colour_error"].passed
    assert checks["forward_errors"].value == 1
    assert checks["fusion_2d_ratio"].passed
