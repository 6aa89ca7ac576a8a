"""Samples in batches, in an order that depends on (seed, epoch) alone."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

import numpy as np
from torch.utils.data import DataLoader, Dataset

from ditr.data.batch import Batch, Sample
from ditr.data.block import Block
from ditr.data.samples import SampleSet
from ditr.errors import Code, DitrError
from ditr.ranks import ALONE, Ranks
from ditr.resources import keep_freed_memory
from ditr.seeds import derive_seed
from ditr.workers import born_deaf, end_with_parent


def batches(
    samples: SampleSet,
    *,
    batch_size: int,
    shuffle: bool,
    workers: int,
    epochs: int = 1,
    first_batch: int = 0,
    end_batch: int | None = None,
    pinned: bool = False,
    ranks: Ranks = ALONE,
) -> Generator[Batch]:
    """Passes over the samples from the set's epoch on, the last batch of each as small as it comes out.

    The batches are the same whatever the number of worker processes, of which there is at most one a core; between two
    epochs they read on. ``first_batch`` leaves out that many from the front without reading them, so that an
    interrupted epoch continues where it stopped; ``end_batch`` ends each pass before that one. Of every batch a rank
    gets its part, and where that is empty the first sample, which is not to count. ``pinned`` memory is what a GPU
    reads by itself. What ``samples`` raises as DitrError is raised as it is, also out of a process.
    """
    allow_open_files()
    workers = min(workers, len(os.sched_getaffinity(0)))
    loader = DataLoader(
        _Told(samples),
        batch_sampler=_Passes(
            samples=samples,
            batch_size=batch_size,
            shuffle=shuffle,
            epochs=epochs,
            first_batch=first_batch,
            end_batch=end_batch,
            ranks=ranks,
        ),
        num_workers=workers,
        collate_fn=_collate,
        multiprocessing_context=worker_context() if workers else None,
        worker_init_fn=_begin_worker if workers else None,
        pin_memory=pinned,
    )
    for block in loader:
        if isinstance(block, _Mistake):
            raise DitrError(block.what, code=block.code, where=block.where, fix=block.fix)
        yield Batch.of(block)


def batch_indices(samples: SampleSet, *, epoch: int, batch_size: int, shuffle: bool) -> list[list[int]]:
    """Indices of the samples of each batch of an epoch."""
    order = np.arange(len(samples))
    if shuffle:
        order = np.random.default_rng(derive_seed(samples.seed, "order", epoch)).permutation(order)
    return [order[start : start + batch_size].tolist() for start in range(0, len(order), batch_size)]


@dataclass(frozen=True, kw_only=True)
class _Passes:
    """A sampler of torch's: of each batch, the epoch and index of every sample."""

    samples: SampleSet
    batch_size: int
    shuffle: bool
    epochs: int
    first_batch: int
    end_batch: int | None
    ranks: Ranks

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first = self.samples.epoch
        for epoch in range(first, first + self.epochs):
            of_epoch = batch_indices(self.samples, epoch=epoch, batch_size=self.batch_size, shuffle=self.shuffle)
            for indices in of_epoch[self.first_batch if epoch == first else 0 : self.end_batch]:
                part = self.ranks.share(len(indices)) or range(1)
                yield [(epoch, indices[at]) for at in part]


@dataclass(frozen=True)
class _Mistake:
    """A DitrError on its way out of a process, where torch would make another exception of it."""

    what: str
    code: Code
    where: str
    fix: str


class _Told(Dataset[Sample | _Mistake]):
    """Samples by epoch and index, or what is wrong with them."""

    def __init__(self, samples: SampleSet) -> None:
        self._samples = samples

    def __getitem__(self, at: tuple[int, int]) -> Sample | _Mistake:
        epoch, index = at
        self._samples.set_epoch(epoch)
        try:
            return self._samples[index]
        except DitrError as error:
            return _Mistake(error.what, error.code, error.where, error.fix)


def _collate(read: list[Sample | _Mistake]) -> Block[Sample] | _Mistake:
    mistakes = [one for one in read if isinstance(one, _Mistake)]
    return mistakes[0] if mistakes else Block.of([one for one in read if isinstance(one, Sample)])


def _begin_worker(number: int) -> None:
    keep_freed_memory()
    end_with_parent()


def allow_open_files() -> None:
    """Every tensor that waits between a worker and this process holds a file open; the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def worker_context() -> BaseContext:
    """Workers come from a server process that never ran OpenMP, CUDA or a thread, none of which survives a fork.

    The server imports what a worker needs once; a worker is then a cheap fork of it. The parent alone decides when to
    stop, and saves first: the server is born deaf, so a worker never hears a signal, not even while it starts.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ditr.data.loading"])
    with born_deaf(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        forkserver.ensure_running()
    return context
