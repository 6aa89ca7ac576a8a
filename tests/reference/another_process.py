"""What a command that is called once more knows of a user's code: nothing yet."""

from __future__ import annotations

import sys

from ditr import plugins


def forget_code(*modules: str) -> None:
    """Modules of a project, which this process has imported or taken the digest of, are as they lie on the disk."""
    plugins._seen_first.cache_clear()
    for module in modules:
        sys.modules.pop(module, None)
