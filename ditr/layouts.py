"""Which layouts of its own files this ditr writes and reads; what it writes carries the number, as ``schema``.

A number goes up when what an older ditr makes of such a file would be wrong, not with every field that is added: older
ones pass over what they do not know. What has no number is of the first layout. Older layouts stay readable; of each, a
record lies in ``tests/record/layouts``.
"""

from __future__ import annotations

from typing import Any

from ditr.errors import Code, DitrError

SPEC = 1
"""Of spec files, in them."""
RECORD = 2
"""Of the folders that runs, evaluations, checks and imports leave, in ``state.json``, which since 2 holds digests of
itself and of the files beside it."""
FEATURES = 1
"""Of a folder of feature maps in the cache, in its ``manifest.json``. Other things in the cache are found by a key that
holds the version of what made them."""
VIEWS = 1
"""Of ``results.duckdb`` and MLflow's store, in the stamp of each record in them: another number is told anew."""
UPGRADE = "Upgrade ditr, or use the version that wrote it."


def require_known(content: object, *, newest: int, code: Code, where: str) -> None:
    """For what was read of a file, before anything else of it is believed.

    Raises
    ------
    NewerLayout: it is of a layout that this ditr does not know.
    """
    written: Any = content.get("schema") if isinstance(content, dict) else None
    if type(written) is int and written > newest:
        raise NewerLayout(newer(written, newest=newest), code=code, where=where, fix=UPGRADE)


class NewerLayout(DitrError):
    """A file that a newer ditr wrote: nothing is wrong with it."""


def newer(written: int, *, newest: int) -> str:
    """What to say of such a file."""
    return f"written by a newer ditr: its schema is {written}, and this one reads {newest} at most"
