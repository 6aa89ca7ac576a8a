"""Profiles of ``ditr.toml``: where ``ditr run --on NAME`` sends runs, and what it asks for each. No number of a run
depends on them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1, le=10_000)]


class _Profile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    gpus: Annotated[int, Field(ge=0, le=64)] = 1
    """Of a job; 0 runs on the CPU."""
    cpus: Count = 4
    """Of a job: threads, and processes that read frames."""
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Of a job; null asks for none."""
    runs_a_job: Count = 1
    """So many runs share what a job has: several seeds of a small model on one GPU."""
    container: str = ""
    """What stands before ``python`` to start it in a container: apptainer exec --nv ditr.sif."""
    setup: tuple[str, ...] = ()
    """Lines of bash before it: modules, an environment, ``export DITR_CACHE=/local/ditr``."""

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        return "cuda" if self.gpus else "cpu"


class SlurmProfile(_Profile):
    """What sbatch is asked for."""

    launcher: Literal["slurm"] = "slurm"
    partition: str | None = None
    hours: Annotated[float, Field(ge=0.1, le=24 * 366)] = 24.0
    """Of a job; a run that needs longer saves and is put into the queue again."""
    jobs_at_once: Count = 256
    options: dict[str, str | int | bool] = Field(default={})
    """More of sbatch's, without their dashes: {account = "lab", constraint = "a100"}."""


class RayProfile(_Profile):
    """What each task of Ray's needs."""

    launcher: Literal["ray"] = "ray"
    address: str | None = None
    """Of a running cluster; null takes that of RAY_ADDRESS or of this machine, or else starts one here."""

    @model_validator(mode="after")
    def _whole_gpus(self) -> RayProfile:
        if self.gpus > 1 and self.gpus % self.runs_a_job:
            raise ValueError(f"Ray gives a run a part of one GPU or whole ones, not {self.gpus}/{self.runs_a_job}")
        return self


Profile = SlurmProfile | RayProfile
LAUNCHERS: dict[str, type[Profile]] = {"slurm": SlurmProfile, "ray": RayProfile}


def with_launcher(profiles: Any) -> Any:
    """Of the tables of ``ditr.toml``: one that is named as a launcher need not say it."""
    if not isinstance(profiles, dict):
        return profiles
    return {
        name: {"launcher": name} | table if isinstance(table, dict) and name in LAUNCHERS else table
        for name, table in profiles.items()
    }
