"""What a stopped training needs to go on as if it had never stopped, in one file."""

from __future__ import annotations

import os
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ditr.errors import Code, DitrError


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
    """Over the whole training."""
    peak_mem_mb: float = 0.0

    def add(self, metrics: dict[str, float], *, mem_mb: float) -> None:
        """One more step of the epoch under way; a metric need not be in every step."""
        for name, value in metrics.items():
            total, count = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = [total + value, count + 1]
        self.timed_ms += metrics["step_ms"]
        self.timed_steps += 1
        self.peak_mem_mb = max(self.peak_mem_mb, mem_mb)
        self.step += 1

    def begin_epoch(self) -> None:
        """Close the epoch under way."""
        self.epoch, self.step, self.sums = self.epoch + 1, 0, {}

    def means(self) -> dict[str, float]:
        """By metric, the mean over the steps of the epoch that had it."""
        return {name: total / count for name, (total, count) in self.sums.items()}


@dataclass(frozen=True)
class TrainingState:
    """The file in which a training is kept; weights, optimizer and ledger as plain tensors and containers."""

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
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            with beside.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        finally:
            beside.unlink(missing_ok=True)

    def restore(self, *, model: nn.Module, optimizer: torch.optim.Optimizer, plan: dict[str, int]) -> Ledger:
        """Put the saved weights and optimizer back and return the ledger; a fresh one if nothing was saved yet.

        Raises DitrError (run) for a damaged file and for one that another training wrote.
        """
        if not self.path.exists():
            return Ledger()
        content = self._read()
        if content["plan"] != plan:
            raise self._error(f"this state is of another training: {_differences(content['plan'], plan)}")
        weights: dict[str, Tensor] = content["model"]
        try:
            model.load_state_dict(weights)
            optimizer.load_state_dict(content["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise self._error(f"this state does not fit the model: {error}") from error
        return Ledger(**content["ledger"])

    def _read(self) -> dict[str, Any]:
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise self._error("this training state cannot be read") from error
        if not isinstance(content, dict) or content.keys() != {"plan", "ledger", "model", "optimizer"}:
            raise self._error("this file is no training state")
        return content

    def _error(self, what: str) -> DitrError:
        return DitrError(
            what,
            code=Code.RUN,
            where=str(self.path),
            fix="delete the file to train this run from its beginning, or restore the spec that it was started with",
        )


def _differences(saved: dict[str, int], wanted: dict[str, int]) -> str:
    names = [name for name in {**wanted, **saved} if saved.get(name) != wanted.get(name)]
    return ", ".join(f"{name} was {saved.get(name)}, now {wanted.get(name)}" for name in names)
