"""``import ditr`` in a notebook or a script: specs, data sets, runs and results. Imports are made where they are used.

>>> import ditr
>>> ditr.load_spec("specs/fpn_inject.yaml", "schedule.epochs=2").schedule.epochs
2

ditr.results().df()                                   # the results table
ditr.compare("baseline", "bifusion", metric="ap50")   # arms, as `ditr compare` sets them side by side
run = ditr.load_run("fpn_inject")
run.model()                                           # trained, on the CPU
run.frame("scene0012_00_200").predicted.scores           # of its predictions, best first
"""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ditr.data.dataset import Dataset
    from ditr.evaluation.resampling import Metric
    from ditr.report.notebook import ComparisonView, ResultsView
    from ditr.runner.loaded_run import LoadedRun
    from ditr.spec.models import Spec

# Read when torch is imported. Threads that spin while they wait for others take ten times as long as one thread where
# other processes want the same cores, as those that read data do.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Read when torch first uses a GPU. Batches differ in size, and pieces of fixed size would leave a tenth of it unused.
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
# Read when a stream first multiplies. What a product is made of hangs on how much memory it may use: a training that
# has just computed its 2D maps and one that goes on after a stop have the same; and torch refuses to promise the same
# bits without it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

__all__ = ["__version__", "compare", "load_run", "load_spec", "open_dataset", "results"]


def __getattr__(name: str) -> str:
    """``ditr.__version__``, that of the installed package."""
    if name == "__version__":
        return version("ditr")
    raise AttributeError(f"module 'ditr' has no attribute '{name}'")


def load_spec(path: str | Path, *overrides: str) -> Spec:
    """A spec file, resolved and checked as every command does; a point of a sweep as ``file.yaml::name``.

    Parameters
    ----------
    overrides: such as ``schedule.epochs=2``, as ``--set`` takes them.

    Raises
    ------
    ditr.errors.DitrError: it is wrong, with every mistake as file:line:col.
    """
    from ditr.spec.load import load_spec as load
    from ditr.spec.registry import Registry

    return load(Path(path), registry=Registry(), overrides=overrides).spec


def open_dataset(name: str) -> Dataset:
    """A data set of the registry, made first if it is an embedded one.

    Its ``train`` and ``val`` are sets of frames: ``frame(index)`` gives points (N, 6) of x, y, z in metres of the
    centred world and r, g, b in 0..255, superpoints (N,), annotated ids (N,), the pose (4, 4) camera to world and the
    camera.

    Raises
    ------
    ditr.errors.DitrError: there is no such entry, or the user's folder is missing or broken.
    """
    from ditr.data.dataset import open_dataset as open_
    from ditr.rooms import make_missing
    from ditr.spec.registry import Registry

    registry = Registry()
    make_missing(name, registry=registry)
    return open_(name, registry=registry)


def load_run(name: str | Path, runs: str | Path | None = None) -> LoadedRun:
    """A run, by its folder, its folder's name, or the name of its experiment if one run of it has finished.

    Parameters
    ----------
    runs: the folder of runs; by default that of the project (``DITR_RUNS``).

    Raises
    ------
    ditr.errors.DitrError: there is none, with near names, or several.
    """
    from ditr.runner.loaded_run import load_run as load

    return load(name, runs=None if runs is None else Path(runs))


def results(runs: str | Path | None = None) -> ResultsView:
    """The results of a folder of runs, as its records say now; by default of the project's (``DITR_RUNS``)."""
    from ditr.report.notebook import results_view

    return results_view(runs)


def compare(
    *arms: str, metric: Metric = "ap50", allow: tuple[str, ...] = (), runs: str | Path | None = None
) -> ComparisonView:
    """Finished runs by name, beside each other, as ``ditr compare`` does; all there are without a name.

    Raises
    ------
    ditr.errors.DitrError: there are none, or they differ in what ``allow`` does not name.
    """
    from ditr.report.notebook import comparison_view

    return comparison_view(arms, metric=metric, allow=allow, runs=runs)
