"""Facts about instances against what the frames on disk say, and how often an evaluation reads these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ditr.data import frame_files
from ditr.data.batch import as_it_is
from ditr.data.classes import THING_NAMES
from ditr.data.dataset import Dataset
from ditr.data.samples import SampleSet
from ditr.evaluation.class_frequency import FREQUENCIES
from ditr.evaluation.evaluate import Evaluation, evaluate
from ditr.evaluation.texture_ids import texture_ids
from ditr.spec.models import EvaluationSpec
from tests.evaluation.test_evaluate import Answers


def samples_of(dataset: Dataset, *, esam_compat: bool = False) -> SampleSet:
    return SampleSet(dataset.val, seed=0, voxel_size_m=0.02, augmentation=None, tokens=None, esam_compat=esam_compat)


def evaluated(samples: SampleSet, *, workers: int = 0) -> Evaluation:
    """By a model that finds every instance but one of each frame."""
    model = Answers(lambda truth: (truth == torch.arange(1, int(truth.max()) + 1)[:, None]) * 40.0 - 20.0)
    return evaluate(
        model,
        samples,
        spec=EvaluationSpec(min_points=10),
        device=torch.device("cpu"),
        encode=as_it_is,
        workers=workers,
        facts=True,
    )


def by_brute_force(dataset: Dataset, samples: SampleSet) -> Iterator[dict[str, Any]]:
    """From the frames on disk, each read for this alone."""
    textures = texture_ids(dataset.root)
    assert textures is not None
    for index, sample in enumerate(samples[at] for at in range(len(samples))):
        frame = dataset.val.frame(index)
        distance = np.linalg.norm(frame.points[:, :3] - frame.pose_c2w[:3, 3], axis=1)
        instance_of_point, labels = sample.targets.instance_of_point.numpy(), sample.targets.labels.tolist()
        for instance in range(instance_of_point.max() + 1):
            mine = instance_of_point == instance
            xyz = frame.points[mine, :3]
            (id_on_disk,) = set(frame.instance_ids[mine].tolist())
            name = THING_NAMES[labels[instance]]
            yield {
                "frame_id": frame.id,
                "instance": instance,
                "n_points": len(xyz),
                "size_m": float(np.linalg.norm(np.ptp(xyz, axis=0))),
                "distance_m": float(np.median(distance[mine])),
                "valid_ratio": float(sample.uv_valid.numpy()[mine].mean()),
                "class_name": name,
                "frequency": FREQUENCIES[name],
                "texture_only": id_on_disk in textures[frame.id],
            }


@pytest.mark.parametrize("esam_compat", [False, True])
def test_facts_are_those_of_the_frames_on_disk(tiny_dataset: Dataset, esam_compat: bool) -> None:
    samples = samples_of(tiny_dataset, esam_compat=esam_compat)
    rows = [dict(row) for row in evaluated(samples).instances]
    found = [row.pop("best_iou") for row in rows]
    assert rows == list(by_brute_force(tiny_dataset, samples))
    assert {row["texture_only"] for row in rows} == {True, False}
    assert [iou == 1 for iou in found] == [row["instance"] > 0 for row in rows]


def test_an_evaluation_reads_every_file_of_a_frame_once(tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[Path] = Counter()
    really = frame_files._read

    def counted(path: Path, *args: Any, **kwargs: Any) -> bytes:
        read[path] += 1
        return really(path, *args, **kwargs)

    monkeypatch.setattr(frame_files, "_read", counted)
    evaluated(samples_of(tiny_dataset))
    assert len(read) == 4 * len(tiny_dataset.val), "points, superpoints, instances, classes"
    assert set(read.values()) == {1}
