"""The small models of tests/model."""

from __future__ import annotations

from tests.model.conftest import build, make_sample, small_backbone, small_model

__all__ = ["build", "make_sample", "small_backbone", "small_model"]
