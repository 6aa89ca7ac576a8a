from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ditr.record.secret_scan import secret_in

# Put together here, so that no scanner of repositories takes this file for what it tests.
SECRETS = {
    "a private key": "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
    "a key of AWS": "AWS_ACCESS_KEY_ID=AKIA" + "IOSFODNN7EXAMPLE",
    "a token of Hugging Face": "login(token='hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ01234567')",
    "a token of GitHub": "https://ghp_" + "a1b2c3d4e5f6g7h8i9j0" * 2 + "@x",
    "a token of GitLab": "glpat-" + "x1y2z3" * 4,
    "a token of PyPI": "pypi-AgE" + "IcHlwaS5vcmcCJ" * 4,
    "a key of a model's service": "sk-proj-" + "Ab1_" * 8,
    "a key of Google": "AIza" + "SyD-9tSrke72PouQMnMX-a7eZSW0jkFMBW8"[:35],
    "a token of Slack": "xoxb-" + "123456789012-abcdefgh",
    "a JSON web token": "eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + "zdWIiOiIxMjM0In0.abcdefghijk",
    "a password in an address": "postgresql://me:hunter" + "2@host/db",
    "a password": "DB_PASSWORD = 'hunt" + "er2!!'",
}
INNOCENT = (
    "sha256: " + "ab12" * 16,
    "password = os.environ['PASSWORD']",
    "def login(password: str, api_key: str | None = None) -> None:",
    "secret = secret_in(patch)",
    "https://user@example.org:8080/x",
    "token = batch.tokens[0]",
    "key_prefix: 'module.'",
    "tokens: [16, 1024, 128]",
    "sqlite:////tmp/x/mlflow.db",
    "the key sk-learn and task-specific-fine-tuning-of-models",
)


@pytest.mark.parametrize("kind", SECRETS)
def test_each_kind_is_found_with_its_line(kind: str) -> None:
    assert secret_in(f"x = 1\n{SECRETS[kind]}\n") == f"{kind}, line 2"


@pytest.mark.parametrize("line", INNOCENT)
def test_what_code_and_specs_are_full_of_is_no_secret(line: str) -> None:
    assert secret_in(line) is None


def test_no_file_of_ditr_would_be_refused() -> None:
    """All code and specs that are here: a rule that sees a secret in one of them costs users their patches."""
    root = Path(__file__).parents[2]
    names = subprocess.run(
        ["git", "-C", root, "ls-files", "ditr", "specs", "tests", "tools", "benchmarks", "registry/**/*.yaml"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    texts = {name: root / name for name in names if (root / name).is_file()}
    found = {name: secret_in(path.read_text(errors="replace")) for name, path in texts.items()}
    assert {name: kind for name, kind in found.items() if kind} == {}
