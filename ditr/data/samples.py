"""From a frame on disk to a sample the model reads."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ditr.data.augmentation import AugmentedPoints, augment
from ditr.data.batch import Sample
from ditr.data.image_augmentation import jitter, mirror
from ditr.data.scannet_sv import FrameSet
from ditr.data.targets import make_targets
from ditr.errors import Code, DitrError
from ditr.geometry.camera import Projection, project
from ditr.seeds import derive_seed
from ditr.spec.models import AugmentationSpec, ImageAugmentationSpec

COLOUR_MEAN = 255 * np.array([0.47793125906962, 0.4303257521323044, 0.3749598901421883])
COLOUR_STD = 255 * np.array([0.2834475483823543, 0.27566157565723015, 0.27018971370874995])
"""Of r, g, b in 0..255 (docs/reference/esam.md, Pipeline 7)."""


class SampleSet(Dataset[Sample]):
    """Frames as samples; what a sample holds depends on (seed, epoch, frame) alone, not on order or process.

    Parameters
    ----------
    frames: where the frames are read.
    seed: the run's seed.
    voxel_size_m: unit of the elastic distortion.
    augmentation: None evaluates: every point stays where it is.
    tokens: reads a frame's (C, Hp, Wp) float16 map by its id; None where no maps are stored. Must be picklable.
    map_hw: height and width in image pixels that a map covers from the top left corner; None is just the image.
    per_point: ``tokens`` gives (C, 1, N), a feature for each of the frame's points, or (C, 1, 1), one for all of them.
    images: whether samples hold their frame's image, for its map to be computed of.
    image_augmentation: of these images; None leaves them as they are, as evaluation does.
    esam_compat: frames without background lose their first instance, as in ESAM (see ``make_targets``).
    """

    def __init__(
        self,
        frames: FrameSet,
        *,
        seed: int,
        voxel_size_m: float,
        augmentation: AugmentationSpec | None,
        tokens: Callable[[str], Tensor] | None,
        map_hw: tuple[int, int] | None = None,
        per_point: bool = False,
        images: bool = False,
        image_augmentation: ImageAugmentationSpec | None = None,
        esam_compat: bool = False,
    ) -> None:
        self.frames = frames
        self.seed = seed
        self.epoch = 0
        self._voxel_size_m = voxel_size_m
        self._augmentation = augmentation
        self._tokens = tokens
        self._map_hw = map_hw
        self._per_point = per_point
        self._images = images
        self._image_augmentation = image_augmentation
        self._esam_compat = esam_compat

    @property
    def augmented(self) -> bool:
        """Whether points or images are changed: such samples are for training only."""
        return self._augmentation is not None or self._image_augmentation is not None

    def without_elastic(self) -> SampleSet:
        """The same samples without the elastic distortion; whatever else is drawn is drawn alike."""
        samples = copy(self)
        if self._augmentation is not None:
            samples._augmentation = self._augmentation.model_copy(update={"elastic": None})
        return samples

    def set_epoch(self, epoch: int) -> None:
        """Samples read from now on are those of ``epoch``."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        """Raises DitrError if 2D features are asked for and the frame's map is missing, no point falls on it, or it is
        of another number of points."""
        frame = self.frames.frame(index)
        xyz = frame.points[:, :3]
        # From the raw points: every augmentation below moves points in 3D and leaves their pixels alone.
        projection = project(xyz, pose_c2w=frame.pose_c2w, intrinsics=frame.intrinsics)
        if (self._tokens is not None and not self._per_point) or self._images:
            _require_seen(projection, frame_id=frame.id)
        augmented = self._augment(xyz, frame_id=frame.id)
        image, uv = self._see(index, projection.uv, mirrored=augmented.mirrored)
        return Sample(
            frame_id=frame.id,
            seed=derive_seed(self.seed, "sample", self.epoch, frame.id),
            xyz=torch.from_numpy(augmented.xyz),
            colour=torch.from_numpy(normalise_colour(frame.points[:, 3:6])),
            camera=torch.from_numpy(frame.pose_c2w[:3, 3].copy()),
            superpoints=torch.from_numpy(frame.superpoints),
            num_superpoints=int(frame.superpoints.max()) + 1,
            uv=torch.from_numpy(np.where(projection.valid[:, None], uv, 0.0).astype(np.float32)),
            uv_valid=torch.from_numpy(projection.valid | self._per_point),
            map_hw=None if self._per_point else self._map_hw or (frame.intrinsics.height, frame.intrinsics.width),
            tokens=self._read(frame.id, points=len(xyz)),
            image=None if image is None else torch.from_numpy(image.copy()),
            targets=make_targets(
                frame.instance_ids,
                frame.semantic_ids,
                frame.superpoints,
                table=frame.classes,
                esam_compat=self._esam_compat,
            ),
            depth_ok_ratio=float(projection.depth_ok.mean()),
            boundary_ok_ratio=float(projection.boundary_ok.mean()),
        )

    def _read(self, frame_id: str, *, points: int) -> Tensor | None:
        """The frame's map, or the features of its so many points."""
        if self._tokens is None:
            return None
        tokens = self._tokens(frame_id)
        return for_points(tokens, points, frame_id=frame_id) if self._per_point else tokens

    def _augment(self, xyz: np.ndarray, *, frame_id: str) -> AugmentedPoints:
        if self._augmentation is None:
            return AugmentedPoints(xyz=xyz.copy(), mirrored=False)
        rng = np.random.default_rng(derive_seed(self.seed, "augment", self.epoch, frame_id))
        return augment(xyz, spec=self._augmentation, voxel_size_m=self._voxel_size_m, rng=rng)

    def _see(self, index: int, uv: np.ndarray, *, mirrored: bool) -> tuple[np.ndarray | None, np.ndarray]:
        """The frame's image, and (N, 2) where in it the points' pixels ``uv`` are."""
        if not self._images:
            return None, uv
        image, spec = self.frames.image(index), self._image_augmentation
        if spec is None:
            return image, uv
        # A generator of its own: points are the same numbers with and without it.
        rng = np.random.default_rng(derive_seed(self.seed, "image", self.epoch, self.frames.ids[index]))
        image = jitter(image, spec=spec, rng=rng)
        return mirror(image, uv) if mirrored and spec.mirror_with_points else (image, uv)


def normalise_colour(rgb: np.ndarray) -> np.ndarray:
    """(N, 3) float32 colours around 0 from r, g, b in 0..255."""
    channels = np.ascontiguousarray(rgb.T)  # numpy is three times as fast along long rows
    return np.ascontiguousarray(((channels - COLOUR_MEAN[:, None]) / COLOUR_STD[:, None]).astype(np.float32).T)


def for_points(tokens: Tensor, points: int, *, frame_id: str) -> Tensor:
    """(C, 1, N) of as many features as there are points, or of one for all; DitrError for any other number."""
    if tokens.shape[2] not in (1, points):
        raise DitrError(
            f"there are features of {tokens.shape[2]} points, and the frame has {points}",
            code=Code.FEATURES,
            where=frame_id,
            fix="compute them of the frame's own points, a row each, in the order of its file",
        )
    return tokens.expand(-1, -1, points)


def _require_seen(projection: Projection, *, frame_id: str) -> None:
    """Raises DitrError if no point can read a 2D feature."""
    if not projection.valid.any():
        raise DitrError(
            f"none of the frame's {len(projection.valid)} points falls on its image, so none can read a 2D feature"
            f" ({int(projection.depth_ok.sum())} are in front of the camera)",
            code=Code.FEATURES,
            where=frame_id,
            fix="check the frame's pose and the intrinsics with `ditr data check`",
        )
