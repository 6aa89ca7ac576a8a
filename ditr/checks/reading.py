"""Stage 2, reading: a point reads the map at its own pixel, shown by a map that says where each of its tokens is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ditr.checks.outcome import Check, Subject, at_most, failed, yes_or_no
from ditr.data.batch import Batch, Sample
from ditr.errors import DitrError

_FRAMES = 3
_FIX = "the reading takes rows for columns, other ends of the map, another size of what it covers, or another sample"


def check_reading(subject: Subject, *, indices: Sequence[int]) -> Iterator[Check]:
    """A batch of plain and augmented samples goes through what the model itself reads with."""
    limit = subject.spec.checks.max_read_error_tokens
    try:
        chosen = indices[:_FRAMES]
        batches = [subject.batch(samples, chosen) for samples in (subject.plain, subject.augmented)]
        samples = [sample for part in batches for sample in part]
        batch = Batch(samples=tuple(_with_ramp(sample, number=number) for number, sample in enumerate(samples)))
        with torch.no_grad():
            points = subject.model.read_2d(batch, statistics={})
    except DitrError as error:
        yield failed(2, "read_error_tokens", error, limit=f"<= {limit:g}")
        return
    seen = torch.cat([sample.uv_valid for sample in batch])
    limit_valid, fix = "the points that have a pixel", "the model must take the samples' uv_valid as it is"
    if points is None:
        detail = "the model reads no map, as if there were no fusion"
        yield yes_or_no(2, "read_where_valid", False, limit=limit_valid, detail=detail)
        return
    wrong = int((points.valid != seen).sum()) if points.valid.shape == seen.shape else len(seen)
    yield yes_or_no(2, "read_where_valid", not wrong, limit=limit_valid, detail=f"{wrong} points differ", fix=fix)
    read = points.dense()
    tolerated = 0.5 if subject.model.sampling == "nearest" else 0.0
    worst, detail, start = 0.0, "", 0
    for number, sample in enumerate(batch):
        of_sample = slice(start, start + len(sample.uv))
        start += len(sample.uv)
        wanted = _place(sample, number=number)
        off = (read[of_sample, : wanted.shape[1]] - wanted).abs().amax(dim=1)[sample.uv_valid]
        if len(off) and float(off.max()) > worst:
            worst, detail = float(off.max()), f"most in {sample.frame_id}"
    beyond = max(0.0, worst - tolerated)
    yield at_most(2, "read_error_tokens", beyond, limit=limit, detail=detail, fix=_FIX)


def _with_ramp(sample: Sample, *, number: int) -> Sample:
    """With a map of the same shape and type: channel 0 is the column, 1 the row, 2 the sample's number in the batch."""
    assert sample.tokens is not None, "a batch as the model reads it has maps"
    _, rows, columns = sample.tokens.shape
    ramp = torch.full_like(sample.tokens, number)
    ramp[0] = torch.arange(columns)
    ramp[1:2] = torch.arange(rows)[:, None]
    return replace(sample, tokens=ramp)


def _place(sample: Sample, *, number: int) -> Tensor:
    """(N, 3 or the map's channels) of the ramp at every point's pixel, at most at the outermost tokens' centres."""
    assert sample.tokens is not None, "a batch as the model reads it has maps"
    channels, rows, columns = sample.tokens.shape
    height, width = sample.map_hw
    column = (sample.uv[:, 0].double() + 0.5) / (width / columns) - 0.5
    row = (sample.uv[:, 1].double() + 0.5) / (height / rows) - 0.5
    place = [column.clamp(0, columns - 1), row.clamp(0, rows - 1), torch.full_like(row, number)]
    return torch.stack(place[:channels], dim=1)
