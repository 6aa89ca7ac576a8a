"""The stages of ``ditr check``, in the order of the way of a feature."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

STAGES: Mapping[int, str] = MappingProxyType({1: "features", 2: "projection", 3: "pyramid", 4: "injection"})
"""Number -> name."""
