"""Images in, maps on disk: workers decode, the device computes and threads write, all at the same time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ditr.errors import Code, DitrError
from ditr.features.decoding import ImageRequest, decoded
from ditr.features.map_writers import Writers
from ditr.features.sources import FeatureSource
from ditr.features.store import FeatureStore
from ditr.progress import Progress

WHAT = "2D features"
CPU_BATCH = 1
"""One image fills the cores, and then its map depends on nothing else: a continued extraction gives the same bits."""
CUDA_BATCH = 48
"""ViT-L on an H200 gains 4 % from 16 to 48, and nothing beyond."""


def make_maps(
    wanted: Sequence[ImageRequest], *, source: FeatureSource, store: FeatureStore, progress: Progress
) -> None:
    """Computes and stores the map of every wanted image.

    Whatever ends it early, an error in any of its parts, Ctrl-C or what ``progress`` raises, each map is whole or
    absent afterwards, and the error is about the frame it names.
    """
    upload = _Upload(source.device) if source.device.type == "cuda" else None
    what, done = f"{WHAT} ({len(wanted) * store.map_bytes / 2**30:.2f} GiB)", 0
    progress(what, done, len(wanted))
    with Writers(store) as writers:
        for images in decoded(wanted, batch=CUDA_BATCH if upload else CPU_BATCH, pinned=upload is not None):
            batch = upload(images.images) if upload else images.images
            writers.put(images.frame_ids, _encoded(source, batch, images.frame_ids))
            if done < writers.written < len(wanted):
                done = writers.written
                progress(what, done, len(wanted))
        while done < len(wanted):
            done = writers.wait(beyond=done)
            progress(what, done, len(wanted))


class _Upload:
    """Copies images to a GPU in a stream of their own, so that the batch before is computed meanwhile."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, images: Tensor) -> Tensor:
        """The images on the GPU, filled up to a whole batch.

        With batches of one size each image goes through the same kernels whatever is computed beside it.
        """
        with torch.cuda.stream(self._stream):
            batch = images.to(self._device, non_blocking=True)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(self._stream)
        batch.record_stream(computing)
        if len(batch) < CUDA_BATCH:
            batch = torch.cat([batch, batch[-1:].expand(CUDA_BATCH - len(batch), -1, -1, -1)])
        return batch


def _encoded(source: FeatureSource, images: Tensor, frame_ids: Sequence[str]) -> Tensor:
    """Maps of the images; on a GPU started, not finished."""
    try:
        with torch.inference_mode():
            return source.encode(images)
    except torch.OutOfMemoryError as error:
        raise DitrError(
            f"the GPU has too little memory for {len(images)} images at once",
            code=Code.ENVIRONMENT,
            where=f"frame {frame_ids[0]}",
            fix="end what else uses the GPU, take a smaller features.input_size, or set execution.device to cpu",
        ) from error
    except DitrError as error:
        where = f"frame {frame_ids[0]}: {error.where}"
        raise DitrError(error.what, code=error.code, where=where, fix=error.fix) from error
    except Exception as error:
        error.add_note(f"while encoding the images of frames {frame_ids[0]} to {frame_ids[-1]}")
        raise
