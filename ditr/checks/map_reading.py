"""Stage 2, reading: a point reads the map at its own pixel, shown by a map that says where each of its tokens is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ditr.checks.measure import Measurements
from ditr.checks.subject import Subject
from ditr.checks.tables import MAP_READING
from ditr.data.batch import Batch, Sample
from ditr.errors import DitrError

_FRAMES = 3


def measure_reading(subject: Subject, *, indices: Sequence[int]) -> Measurements:
    """A batch of plain and augmented samples goes through what the model itself reads with."""
    found = Measurements(MAP_READING)
    try:
        chosen = indices[:_FRAMES]
        batches = [subject.batch(samples, chosen) for samples in (subject.plain, subject.augmented)]
        samples = [sample for part in batches for sample in part]
        batch = Batch(samples=tuple(_with_ramp(sample, number=number) for number, sample in enumerate(samples)))
        with torch.no_grad():
            points = subject.model.read_2d(batch, statistics={})
    except DitrError as error:
        found.fail("read_error_tokens", error)
        return found
    valid = torch.cat([sample.uv_valid for sample in batch])
    if points is None:
        found.take("read_where_valid", False, note="the model reads no map, as if there were no fusion")
        return found
    wrong = int((points.valid != valid).sum()) if points.valid.shape == valid.shape else len(valid)
    found.take("read_where_valid", not wrong, note=f"{wrong} points differ")
    tolerated = 0.5 if subject.model.sampling == "nearest" else 0.0
    read, start = points.dense(), 0
    for number, sample in enumerate(batch):
        of_sample = slice(start, start + len(sample.uv))
        start += len(sample.uv)
        wanted = _place(sample, number=number)
        off = (read[of_sample, : wanted.shape[1]] - wanted).abs().amax(dim=1)[sample.uv_valid]
        beyond = float((off.max() - tolerated).clamp(min=0)) if len(off) else 0.0
        found.take("read_error_tokens", beyond, sample.frame_id)
    return found


def _with_ramp(sample: Sample, *, number: int) -> Sample:
    """With a map of the same shape: channel 0 is the column, 1 the row, 2 the sample's number in the batch."""
    assert sample.tokens is not None, "a batch as the model reads it has maps"
    _, rows, columns = sample.tokens.shape
    ramp = torch.full_like(sample.tokens, number, dtype=torch.float32)  # a frame has more points than float16 counts
    ramp[0] = torch.arange(columns)
    ramp[1:2] = torch.arange(rows)[:, None]
    return replace(sample, tokens=ramp)


def _place(sample: Sample, *, number: int) -> Tensor:
    """(N, 3 or the map's channels) of the ramp at every point's pixel, at most at the outermost tokens' centres; or at
    every point's own column."""
    assert sample.tokens is not None, "a batch as the model reads it has maps"
    channels, rows, columns = sample.tokens.shape
    if sample.map_hw is None:
        column = torch.arange(len(sample.uv), dtype=torch.float64, device=sample.uv.device)
        row = torch.zeros_like(column)
    else:
        height, width = sample.map_hw
        column = (sample.uv[:, 0].double() + 0.5) / (width / columns) - 0.5
        row = (sample.uv[:, 1].double() + 0.5) / (height / rows) - 0.5
    place = [column.clamp(0, columns - 1), row.clamp(0, rows - 1), torch.full_like(row, number)]
    return torch.stack(place[:channels], dim=1)
