"""One run by its folder or its name."""

from __future__ import annotations

import difflib
from contextlib import suppress
from pathlib import Path

from ditr.errors import Code, DitrError
from ditr.record.folder import Record, records_in
from ditr.record.state import UnreadableRecord


def find_run(text: str, *, runs: Path) -> Record:
    """The run whose folder this is, or is called so in ``runs``, or the only finished one of this experiment there.

    Raises
    ------
    DitrError: there is none, with near names, or several, with all of their names; or it is no run.
    """
    for folder in (Path(text), runs / text):
        if (folder / "state.json").is_file():
            return _run(Record(folder))
    if len(Path(text).parts) > 1:
        fix = "Name a run's folder, or a run of `ditr ls`."
        raise DitrError("no run's folder", code=Code.RUN, where=text, fix=fix)
    names: dict[str, list[Record]] = {}
    for run in records_in(runs):
        with suppress(UnreadableRecord):
            state = run.state()
            if state is not None and state.kind == "run" and state.state == "finished":
                names.setdefault(state.name, []).append(run)
    found = names.get(text, [])
    if len(found) == 1:
        return found[0]
    if found:
        each = ", ".join(run.path.name for run in found)
        what = f"{len(found)} finished runs are called '{text}'"
        raise DitrError(what, code=Code.RUN, where=str(runs), fix=f"Name one of {each}.")
    raise _unknown(text, names, runs)


def _run(record: Record) -> Record:
    state = record.state()
    if state is not None and state.kind != "run":
        what = f"this is a record of kind '{state.kind}', not a run"
        raise DitrError(what, code=Code.RUN, where=str(record.path), fix="Name a run of `ditr ls`.")
    return record


def _unknown(text: str, names: dict[str, list[Record]], runs: Path) -> DitrError:
    known = [*names, *(run.path.name for of_name in names.values() for run in of_name)]
    if not known:
        fix = "Run a spec first, such as: ditr run specs/fpn_inject.yaml"
        return DitrError("there is no finished run yet", code=Code.RUN, where=str(runs), fix=fix)
    close = difflib.get_close_matches(text, known, n=3)
    guess = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(names))}"
    what = f"no finished run is called '{text}'; {guess}"
    return DitrError(what, code=Code.RUN, where=str(runs), fix="`ditr ls` lists all runs.")
