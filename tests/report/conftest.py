from __future__ import annotations

from tests.reference.finished_runs import make, runs

__all__ = ["make", "runs"]
