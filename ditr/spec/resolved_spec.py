"""The resolved spec of a run, read as what it says: the registry may have changed since the run."""

from __future__ import annotations

from pathlib import Path

from ditr.errors import Code, DitrError
from ditr.spec.execution import with_engine
from ditr.spec.explain import check
from ditr.spec.file_schema import take_schema
from ditr.spec.fusion import FusionSpec
from ditr.spec.models import Spec
from ditr.spec.yaml_text import Value, read_yaml

_FIX = "Run its spec again with this version of ditr, or read it with the version that ran it."


def read_resolved(path: Path) -> Spec:
    """The spec of a run's ``spec.resolved.yaml``, also of older versions; no entry of the registry is looked at.

    It names the run's engine. Of versions that had no other than MinkowskiEngine, it is that.

    Raises
    ------
    DitrError: there is none, a fusion part that it names is not there any more, or it is damaged or says what no spec
        of this version can, with every place.
    """
    source = read_yaml(path)
    problems, spec, said = list(source.problems), None, source.value
    if said is not None:
        said, wrong = take_schema(said)
        if wrong is not None:
            raise DitrError(str(wrong), code=Code.RUN, where=str(path), fix=_FIX)
    if said is not None and (gone := _unknown_parts(said)):
        what = f"its fusion part{'s' if len(gone) > 1 else ''} {', '.join(gone)} cannot be found here"
        fix = "Name it under [fusion] of the project's ditr.toml, or install the package that has it."
        raise DitrError(what, code=Code.RUN, where=str(path), fix=fix)
    if said is not None:
        spec, mistakes = check(said, Spec)
        problems += mistakes
    if spec is None or problems:
        each = "".join(f"\n  {problem}" for problem in problems)
        raise DitrError(f"no resolved spec of this version of ditr{each}", code=Code.RUN, where=str(path), fix=_FIX)
    assert isinstance(spec, Spec)
    return with_engine(spec, "minkowski") if spec.execution.engine == "auto" else spec


def _unknown_parts(resolved: Value) -> list[str]:
    """Names under ``fusion`` that nothing here is called by."""
    fusion = resolved.at(("fusion",))
    names = list(fusion.data) if fusion is not None and isinstance(fusion.data, dict) else []
    if all(name in FusionSpec.model_fields for name in names):
        return []
    return [name for name in names if name not in FusionSpec.known_keys()]
