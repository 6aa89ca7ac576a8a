"""The numbers of specs and registry entries, each with bounds that no experiment meets.

A value outside is a slip, such as a power of ten too many, and would end in an overflow or take all memory.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MOST = 1_000_000
"""Of what is counted, and of floats that have no narrower bound."""
MOST_SEED = 2**63 - 1
"""What the tables of results hold as a whole number."""
MOST_SCENES = 9_999
"""Scene names have four digits."""
MOST_CHANNELS = 16_384
MOST_CLASS_ID = 65_535
MOST_PROCESSES = 1_024

Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
SeedCount = Annotated[int, Field(ge=3, le=1_000)]
"""Below three seeds no comparison decides anything."""
Count = Annotated[int, Field(gt=0, le=MOST)]
"""Of what there is at least one."""
Amount = Annotated[int, Field(ge=0, le=MOST)]
"""Of what there may be none."""
Scenes = Annotated[int, Field(gt=0, le=MOST_SCENES)]
Processes = Annotated[int, Field(ge=0, le=MOST_PROCESSES)]
Gpus = Annotated[int, Field(ge=1, le=MOST_PROCESSES)]
Channels = Annotated[int, Field(gt=0, le=MOST_CHANNELS)]
"""Of 2D features, and within a feed-forward layer."""
Width = Annotated[int, Field(gt=0, le=4_096)]
"""Channels of the 3D model, whose weights grow with their square."""
Blocks = Annotated[int, Field(gt=0, le=1_000)]
"""Layers of one kind, one after the other."""
Layer = Annotated[int, Field(ge=-1_000, le=1_000)]
"""Which of them, from 0, or from the end: -1 is the last."""
Pixels = Annotated[int, Field(gt=0, le=16_384)]
"""Of an edge, or tokens along it."""
Size = Annotated[tuple[Pixels, Pixels], Field(strict=False)]
"""Height and width."""

Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, le=MOST)]
Positive = Annotated[float, Field(gt=0, le=MOST)]
Signed = Annotated[float, Field(ge=-MOST, le=MOST)]
Range = Annotated[tuple[Positive, Positive], Field(strict=False)]
Rate = Annotated[float, Field(gt=0, le=100)]
"""Of learning."""
VoxelSize = Annotated[float, Field(ge=1e-3, le=10)]
"""In metres: from what no sensor resolves to a room."""
Factor = Annotated[float, Field(ge=0.1, le=10)]
"""By which points are scaled."""
Spacing = Annotated[float, Field(ge=1, le=10_000)]
"""Of a grid, in voxels."""
Spread = Annotated[float, Field(gt=0, le=10_000)]
"""In voxels."""
