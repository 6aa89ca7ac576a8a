"""Frames with things and classes by rule, without files."""

from __future__ import annotations

import torch

from ditr.data.batch import Sample, Targets


def labelled_frame(seed: int, *, points: int = 40, superpoints: int = 10, things: int = 3) -> Sample:
    """Superpoint s lies inside thing s % (things + 1), the last residue in none; every point follows its superpoint."""
    rng = torch.Generator().manual_seed(seed)
    superpoint_of = torch.cat(
        (torch.arange(superpoints), torch.randint(superpoints, (points - superpoints,), generator=rng))
    )
    thing_of = torch.arange(superpoints) % (things + 1)
    thing_of[thing_of == things] = -1
    classes = torch.randint(201, (superpoints,), generator=rng)
    targets = Targets(
        instance_of_point=thing_of[superpoint_of],
        instance_of_superpoint=thing_of,
        class_of_superpoint=classes,
        labels=torch.zeros(things, dtype=torch.int64),
        ids=torch.arange(1, things + 1),
    )
    return Sample(
        frame_id=f"scene0000_00_{seed}",
        seed=seed,
        xyz=torch.randn(points, 3, generator=rng),
        colour=torch.zeros(points, 3),
        camera=torch.zeros(3, dtype=torch.float64),
        superpoints=superpoint_of,
        num_superpoints=superpoints,
        uv=torch.zeros(points, 2),
        uv_valid=torch.zeros(points, dtype=torch.bool),
        map_hw=(480, 640),
        tokens=None,
        targets=targets,
    )
