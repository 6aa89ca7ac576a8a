"""What an arm is in the study, read off its spec: which question it can answer."""

from __future__ import annotations

from typing import Literal

from ditr.spec.identity import is_control
from ditr.spec.models import Spec

Role = Literal["3d_only", "single_scale", "multi_scale", "both", "control", "other"]

IN_WORDS: dict[Role, str] = {
    "3d_only": "3D only",
    "single_scale": "single-scale gate",
    "multi_scale": "multi-scale injection",
    "both": "gate and multi-scale injection",
    "control": "control: features that should tell nothing",
    "other": "another fusion",
}


def role(spec: Spec) -> Role:
    """3d_only has no fusion, single_scale the gate alone, multi_scale injection at several strides alone, both the two.

    A control is that whatever its fusion.
    """
    injection, parts = spec.fusion.injection, set(spec.fusion.parts)
    if not parts:
        return "3d_only"
    if is_control(spec):
        return "control"
    if parts == {"bifusion"}:
        return "single_scale"
    if injection is not None and len(injection.scales) > 1 and parts <= {"bifusion", "injection"}:
        return "both" if "bifusion" in parts else "multi_scale"
    return "other"
