"""What ``ditr data check`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ditr.cli.tables import text_table

if TYPE_CHECKING:
    from ditr.cli.display import Display
    from ditr.data.dataset import Dataset
    from ditr.data_check.check import CheckReport, DataProblem

_STANDS_OUT = 0.2
"""Share of points beyond the median that is much, however alike the frames are."""
_SHOWN = 10
FOR_A_RUN = {
    "frame": "breaks the frame",
    "refused": "no run starts",
    "harmless": "runs do without",
}
"""Effect of a kind of problem -> the words for it."""


def check_and_say(dataset: Dataset, display: Display, *, opening: Sequence[tuple[str, str]] = ()) -> CheckReport:
    """Reads every file, says what was found and keeps it for runs.

    Parameters
    ----------
    opening: kind and text of what ``open_dataset`` reported; with any, no run gets as far as asking for the report.
    """
    from ditr.data.prepared import PREPARED
    from ditr.data_check.screening import check_and_keep

    report = check_and_keep(dataset, progress=display.progress, opening=opening)
    display.say(f"{dataset.root}\n")
    display.say("\n".join(written(report, imported=(dataset.root / PREPARED).is_file())))
    return report


def written(report: CheckReport, *, imported: bool = False) -> list[str]:
    """Lines: statistics, histogram of the reprojection error, examples of each kind of problem, and last the counts.

    Parameters
    ----------
    imported: points were made here with the camera that they are held against.
    """
    from ditr.data_check.frame_check import PIXEL_DISTANCE

    by_construction = " (of an import: by construction, not a proof of the camera)"
    rows = [
        (name + by_construction * (imported and name.startswith(PIXEL_DISTANCE)), value)
        for name, value in sorted(report.statistics.items())
    ]
    lines = [*text_table(("what", "value"), rows).splitlines(), ""]
    lines += [*_reprojection(report, imported=imported), ""]
    lines += [*_unannotated(report.unannotated), ""] if report.unannotated else []
    for problem in report.problems:
        lines += _examples(problem)
    if report.sound:
        return [*lines, "no problems"]
    problems = [(problem.kind, problem.count, FOR_A_RUN[problem.effect]) for problem in report.problems]
    if report.reprojection.refused:
        problems.append(("reprojection", report.reprojection.refused, FOR_A_RUN["refused"]))
    return [*lines, *text_table(("problem", "count", "for a run"), problems).splitlines(), *_verdict(report)]


def _unannotated(shares: Mapping[str, float]) -> list[str]:
    """What half of the frames leave out, and the frames that leave out much more: labels of another scene, or none."""
    import numpy as np

    lower, half, upper = np.quantile(list(shares.values()), (0.25, 0.5, 0.75))
    much = half + max(_STANDS_OUT, 3 * (upper - lower))
    out = sorted((frame for frame, share in shares.items() if share > much), key=lambda frame: (-shares[frame], frame))
    lines = [f"unannotated points: {half:.1%} or less in half of the frames, {max(shares.values()):.1%} at most"]
    lines += [f"  stands out: {frame}, {shares[frame]:.1%}" for frame in out[:_SHOWN]]
    return lines + _more(len(out), _SHOWN)


def _reprojection(report: CheckReport, *, imported: bool) -> list[str]:
    from ditr.data_check.reprojection_summary import histogram

    found = report.reprojection
    lines = ["reprojection: from the pixel that the camera declares to the pixel that the point was made of"]
    if imported:
        lines.append("  the import made the points with this camera: small errors say nothing of whether it is right")
    lines += [f"  {line}" for line in histogram(found)]
    lines += [f"  {example}" for example in found.examples]
    return lines + _more(found.refused, len(found.examples))


def _examples(problem: DataProblem) -> list[str]:
    head = f"{problem.kind}: {problem.count} problem{'' if problem.count == 1 else 's'}"
    lines = [head, *(f"  {example}" for example in problem.examples)]
    return [*lines, *_more(problem.count, len(problem.examples)), ""]


def _more(count: int, shown: int) -> list[str]:
    return [f"  and {count - shown} more"] if count > shown else []


def _verdict(report: CheckReport) -> list[str]:
    if report.reprojection.refused or any(problem.effect == "refused" for problem in report.problems):
        return ["", "No run uses this data set as it is."]
    if not report.broken:
        return ["", "Every frame can be used."]
    return [
        "",
        f"{len(report.broken)} of {report.named} frames cannot be used: a run refuses, or leaves them out with",
        "dataset.broken_frames: exclude and counts them in its results.",
    ]
