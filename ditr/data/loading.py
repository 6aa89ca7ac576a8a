"""Samples in batches, in an order that depends on (seed, epoch) alone."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext

import numpy as np
from torch.utils.data import DataLoader, Dataset

from ditr.data.batch import Batch, Sample, collate
from ditr.data.samples import SampleSet
from ditr.errors import Code, DitrError
from ditr.seeds import derive_seed


def batches(
    samples: SampleSet, *, batch_size: int, shuffle: bool, workers: int, first_batch: int = 0
) -> Iterator[Batch]:
    """One pass over the samples, the last batch as small as it comes out.

    The batches are the same whatever the number of worker processes, of which there is at most one a core.
    ``first_batch`` leaves out that many from the front without reading them, so that an interrupted epoch continues
    where it stopped. What ``samples`` raises as DitrError is raised as it is, also out of a process.
    """
    allow_open_files()
    workers = min(workers, len(os.sched_getaffinity(0)))
    loader = DataLoader(
        _Told(samples),
        batch_sampler=batch_indices(samples, batch_size=batch_size, shuffle=shuffle)[first_batch:],
        num_workers=workers,
        collate_fn=_collate,
        multiprocessing_context=worker_context() if workers else None,
    )
    for batch in loader:
        if isinstance(batch, _Mistake):
            raise DitrError(batch.what, code=batch.code, where=batch.where, fix=batch.fix)
        yield batch


def batch_indices(samples: SampleSet, *, batch_size: int, shuffle: bool) -> list[list[int]]:
    """Indices of the samples of each batch of the set's epoch."""
    order = np.arange(len(samples))
    if shuffle:
        order = np.random.default_rng(derive_seed(samples.seed, "order", samples.epoch)).permutation(order)
    return [order[start : start + batch_size].tolist() for start in range(0, len(order), batch_size)]


@dataclass(frozen=True)
class _Mistake:
    """A DitrError on its way out of a process, where torch would make another exception of it."""

    what: str
    code: Code
    where: str
    fix: str


class _Told(Dataset[Sample | _Mistake]):
    """Samples, or what is wrong with them."""

    def __init__(self, samples: SampleSet) -> None:
        self._samples = samples

    def __getitem__(self, index: int) -> Sample | _Mistake:
        try:
            return self._samples[index]
        except DitrError as error:
            return _Mistake(error.what, error.code, error.where, error.fix)


def _collate(read: list[Sample | _Mistake]) -> Batch | _Mistake:
    mistakes = [one for one in read if isinstance(one, _Mistake)]
    return mistakes[0] if mistakes else collate([one for one in read if isinstance(one, Sample)])


def allow_open_files() -> None:
    """Every tensor that waits between a worker and this process holds a file open; the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def worker_context() -> BaseContext:
    """Workers come from a server process that never ran OpenMP, CUDA or a thread, none of which survives a fork.

    The server imports what a worker needs once; a worker is then a cheap fork of it. Ctrl-C reaches every process of
    the terminal, and a cluster's SIGTERM every process of a group, but the parent alone decides when to stop, and saves
    first: the server is born with both blocked, so a worker never hears them, not even while it starts.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ditr.data.loading"])
    resource_tracker.ensure_running()  # which would unblock SIGINT, were it started along with the server
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context
