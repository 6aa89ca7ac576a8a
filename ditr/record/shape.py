"""What ``provenance.json`` must be for what is read of it; it holds more."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Open(BaseModel):
    """Of strict types, and open to whatever else is noted."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Git(_Open):
    commit: str
    dirty: bool


class _Session(_Open):
    git: _Git | None = None
    code: str | None = None
    packages: dict[str, str] | None = None
    device: str | None = None
    threads: int | None = None
    ranks: int | None = None


class _Dataset(_Open):
    digest: str
    root: str | None = None
    intrinsics: str | None = None
    excluded_frames: list[str] | None = None


class _Features(_Open):
    weights_digest: str | None = None
    weights_stamp: str | None = None
    maps_digest: str | None = None
    entry: dict[str, Any] | None = None


class _Weights(_Open):
    sha256: str


class Provenance(_Session):
    """Of a record of any kind."""

    spec: str | None = None
    source: str | None = None
    params: dict[str, Any] | None = None
    dataset: _Dataset | None = None
    features: _Features | None = None
    start_weights: _Weights | None = None
    evaluated_weights: _Weights | None = None
    earlier_sessions: list[_Session] = []
