"""What a stopped training needs to go on as if it had never stopped, in one file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
import xxhash
from torch import nn

from ditr.errors import Code, DitrError
from ditr.files import replacing


@dataclass(kw_only=True)
class Ledger:
    """Where training is and what it has added up; the only thing that changes besides the model and the optimizer."""

    epoch: int = 0
    """Epochs done."""
    step: int = 0
    """Steps done of the epoch under way."""
    validated: int = 0
    """Epochs that were done at the last validation."""
    sums: dict[str, list[float]] = field(default_factory=dict)
    """Of the epoch under way, by metric: sum and count."""
    timed_ms: float = 0.0
    timed_steps: int = 0
    """Over the whole training, but for the steps in which kernels were compiled."""
    peak_mem_mb: float = 0.0

    def add(self, metrics: Mapping[str, float], *, timed: bool) -> None:
        """What a step of the epoch under way said; a metric need not be in every step."""
        for name, value in metrics.items():
            total, count = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = [total + value, count + 1]
        if timed:
            self.timed_ms += metrics["step_ms"]
            self.timed_steps += 1

    def begin_epoch(self) -> None:
        """Close the epoch under way."""
        self.epoch, self.step, self.sums = self.epoch + 1, 0, {}

    def means(self) -> dict[str, float]:
        """By metric, the mean over the steps of the epoch that had it."""
        return {name: total / count for name, (total, count) in self.sums.items()}


_MARK = b"ditr state, xxh3_128 "
_TRAILER_BYTES = len(_MARK) + 16
_PART_BYTES = 2**24


@dataclass(frozen=True)
class TrainingState:
    """The file in which a training is kept; weights, optimizer and ledger as plain tensors and containers.

    It is a file of torch's, followed by a mark and the digest of all that stands before it.
    """

    path: Path

    def save(self, ledger: Ledger, *, model: nn.Module, optimizer: torch.optim.Optimizer, plan: dict[str, int]) -> None:
        """Replace the file at once: a crash leaves the old state or the new one. ``plan`` is what must not change."""
        content = {
            "plan": plan,
            "ledger": asdict(ledger),
            "model": dict(model.state_dict()),
            "optimizer": optimizer.state_dict(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        moments = (moment for of_weight in optimizer.state.values() for moment in of_weight.values())
        needs = sum(tensor.nbytes for tensor in (*model.state_dict().values(), *moments))
        with replacing(self.path, needs=needs) as beside, beside.open("w+b") as file:
            torch.save(content, file)
            file.write(_MARK + _digest(file, size=file.tell()))

    def restore(self, *, model: nn.Module, optimizer: torch.optim.Optimizer, plan: dict[str, int]) -> Ledger:
        """Put the saved weights and optimizer back and return the ledger; a fresh one if nothing was saved yet.

        Raises
        ------
        DitrError: the file is damaged or without its digest, or another training wrote it.
        """
        if not self.path.exists():
            return Ledger()
        content = self._read()
        if content["plan"] != plan:
            raise self._error(f"this state is of another training: {_differences(content['plan'], plan)}")
        try:
            model.load_state_dict(content["model"])
            optimizer.load_state_dict(content["optimizer"])
            return Ledger(**content["ledger"])
        except (RuntimeError, ValueError, TypeError) as error:
            raise self._error(f"this state does not fit the model: {error}") from error

    def _read(self) -> dict[str, Any]:
        try:
            with self.path.open("rb") as file:
                self._require_digest(file)
                file.seek(0)
                content = torch.load(file, map_location="cpu", weights_only=True)
        except DitrError:
            raise
        except Exception as error:  # what torch and the disk can raise is not to be listed; all of it means the same
            raise self._error(f"this training state cannot be read ({type(error).__name__})") from error
        if not isinstance(content, dict) or content.keys() != {"plan", "ledger", "model", "optimizer"}:
            raise self._error("this file is no training state")
        return content

    def _require_digest(self, file: BinaryIO) -> None:
        """All bytes are those that ``save`` wrote; torch itself checks none of them."""
        found = _digest(file, size=file.seek(0, os.SEEK_END) - _TRAILER_BYTES)
        trailer = file.read()
        if not trailer.startswith(_MARK):
            raise self._error("this training state is cut short, or an older version wrote it: it ends in no digest")
        if trailer != _MARK + found:
            raise self._error("this training state is damaged: it does not match its digest")

    def _error(self, what: str) -> DitrError:
        return DitrError(
            what,
            code=Code.RUN,
            where=str(self.path),
            fix="delete the file to train this run from its beginning, or restore it and its spec",
        )


def _digest(file: BinaryIO, *, size: int) -> bytes:
    """Of the first so many bytes, or of all there are; the file stands behind them then."""
    file.seek(0)
    digest = xxhash.xxh3_128()
    while size > 0 and (part := file.read(min(size, _PART_BYTES))):
        digest.update(part)
        size -= len(part)
    return digest.digest()


def _differences(saved: dict[str, int], wanted: dict[str, int]) -> str:
    names = [name for name in {**wanted, **saved} if saved.get(name) != wanted.get(name)]
    return ", ".join(f"{name} was {saved.get(name)}, now {wanted.get(name)}" for name in names)
