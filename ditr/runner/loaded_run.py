"""A run that has finished, to go on with in Python: its spec, its numbers, its model, its view of a frame."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditr.paths import runs_dir
from ditr.record.folder import Record
from ditr.record.lookup import find_run
from ditr.runner.fusion_code import changed_parts
from ditr.spec.execution import with_engine
from ditr.spec.models import Spec
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.data.frame_view import FrameView
    from ditr.model.esam import EsamSingleView


class LoadedRun:
    """One run's record, read when asked for.

    Attributes
    ----------
    record: its folder and the paths in it.
    spec: what it was made of, as it was resolved then; later changes of spec files and registry are not in it.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.spec: Spec = record.read_spec()

    def __repr__(self) -> str:
        state = self.record.state()
        ap50 = self.result.get("ap50")
        shown = f", ap50 {ap50:.4f}" if ap50 is not None else ""
        return f"LoadedRun({self.record.path.name!r}, {state.state if state else 'not begun'}{shown})"

    @property
    def result(self) -> dict[str, Any]:
        """What result.json says: scores in 0..1, costs, digests; empty until the run has one."""
        return self.record.read_result()

    @property
    def provenance(self) -> dict[str, Any]:
        """With which code, data and machine it was made."""
        return self.record.read_provenance() or {}

    def model(self) -> EsamSingleView:
        """The trained model on the CPU, in evaluation mode; it takes a ``ditr.data.batch.Batch``.

        Raises
        ------
        DitrError: the run has left no weights, or they are damaged.

        Warns
        -----
        UserWarning: a fusion part of the project or of a package has other code now than when the run was made.
        """
        from ditr.runner.evaluate_checkpoint import whole_model
        from ditr.runner.trained_model import require_weights

        for line in changed_parts(self.record, self.spec):
            warnings.warn(line, stacklevel=2)
        spec = with_engine(self.spec, "minkowski")  # which runs on the CPU
        model, _ = whole_model(spec, require_weights(self.record), registry=Registry())
        return model.eval()

    def frame(self, frame_id: str, *, say: Callable[[str], None] = lambda line: None) -> FrameView:
        """One frame of the run's data set as the run sees it: its weights evaluate the frame again.

        Parameters
        ----------
        frame_id: such as ``scene0012_00_200``, of either split.
        say: takes a line about what is opened or made, and one if the data have changed since the run.

        Returns
        -------
        Of N points: ``in_space.xyz`` (N, 3) in metres of the centred world, ``uv`` (N, 2) pixels, ``instance_of_point``
        (N,) of the ground truth, ``predicted.of_point`` (N,) with ``predicted.scores`` (K,), and ``features``, the 2D
        features in colours, None without fusion; see ``FrameView``.

        Raises
        ------
        DitrError: the run has left no weights, or there is no such frame.
        """
        from ditr.runner.run_view import view_frame

        view, _ = view_frame(self.record, frame_id, registry=Registry(), say=say)
        return view


def load_run(name: str | Path, *, runs: Path | None = None) -> LoadedRun:
    """As ``find_run``; by default in the project's folder of runs."""
    return LoadedRun(find_run(str(name), runs=runs or runs_dir()))
