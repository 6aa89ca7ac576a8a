"""Feature maps computed in the step, of images that may be augmented."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import torch
from torch import Tensor

from ditr.data.batch import Batch, Sample
from ditr.errors import Code, DitrError
from ditr.features.sources import FeatureSource


class OnlineMaps:
    """Gives a batch on the device the maps of its images. The frozen source is no part of the model that is trained.

    Parameters
    ----------
    source: on the device of the batches.
    """

    def __init__(self, source: FeatureSource) -> None:
        self.source = source

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Batch:
        """The batch with float16 ``tokens`` in place of each ``image``; images of one size are encoded together.

        Raises DitrError, with the frames, if the source gives values that are not finite. Every sample has an image.
        """
        encoded: dict[int, Sample] = {}
        for indices in _of_one_size(batch):
            samples = [batch.samples[index] for index in indices]
            maps = self.source.encode(torch.stack([_image(sample) for sample in samples]))
            _require_finite(maps, samples)
            for index, sample, tokens in zip(indices, samples, maps, strict=True):
                encoded[index] = replace(sample, tokens=tokens, image=None)
        return Batch(samples=tuple(encoded[index] for index in range(len(batch))))


def _of_one_size(batch: Batch) -> list[list[int]]:
    """Indices of the samples whose images can be stacked."""
    groups: dict[torch.Size, list[int]] = defaultdict(list)
    for index, sample in enumerate(batch):
        groups[_image(sample).shape].append(index)
    return list(groups.values())


def _image(sample: Sample) -> Tensor:
    assert sample.image is not None, "samples whose maps are computed online hold their image"
    return sample.image


def _require_finite(maps: Tensor, samples: list[Sample]) -> None:
    finite = torch.isfinite(maps).flatten(1).all(dim=1)
    if not finite.all():
        raise DitrError(
            "the 2D source gave values that are not finite in float16",
            code=Code.FEATURES,
            where=", ".join(sample.frame_id for sample, fine in zip(samples, finite.tolist(), strict=True) if not fine),
            fix="check the source's weights, and the frame's image with `ditr data show`",
        )
