"""Finds what is obviously a secret in text that is about to be copied into a record.

A record is made to be handed on. A text that is refused for nothing costs a copy of a file, which is named all the
same; one that gets through costs a key. No library is used: those that there are (detect-secrets is one, which CI runs
on the repository) look for high entropy too, which every digest of a spec has, and know no key of Hugging Face.
"""

from __future__ import annotations

import re

_KINDS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",  # PEM, of TLS and SSH
    "a key of AWS": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",  # where weights and data lie in buckets
    "a token of Hugging Face": r"\bhf_[A-Za-z0-9]{30,}",  # gated weights are fetched with one
    "a token of GitHub": r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{22,})",  # private dependencies
    "a token of GitLab": r"\bglpat-[\w-]{20,}",
    "a token of PyPI": r"\bpypi-AgE[\w-]{40,}",
    "a key of a model's service": r"\bsk-[A-Za-z0-9][\w-]{20,}",  # OpenAI, Anthropic and who copied the form
    "a key of Google": r"\bAIza[\w-]{35}",
    "a token of Slack": r"\bxox[abeprs]-[\w-]{10,}",  # messages at the end of a training
    "a JSON web token": r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}",
    # of a database, a proxy or a git remote
    "a password in an address": r"\b[a-z][a-z0-9+.-]*://[^\s/:@'\"{}<>]*:[^\s/@'\"{}<>]{3,}@",
    "a password": (  # a literal that is given to what is called so; not a variable, and not a path to a file of it
        r"(?i)\b\w*(?:password|passwd|secret|api_?key|access_?key|auth_?token|access_?token)\w*['\"]?\s*[:=]\s*"
        r"(?:['\"][^\s'\"{}]{6,}['\"]|[^\s'\"{}()\[\],.]*\d[^\s'\"{}()\[\],.]{7,})"
    ),
}
_PATTERNS = {kind: re.compile(pattern) for kind, pattern in _KINDS.items()}


def secret_in(text: str) -> str | None:
    """What kind of secret the text holds, and in which of its lines; None if none is seen."""
    for number, line in enumerate(text.splitlines(), start=1):
        for kind, pattern in _PATTERNS.items():
            if pattern.search(line):
                return f"{kind}, line {number}"
    return None
