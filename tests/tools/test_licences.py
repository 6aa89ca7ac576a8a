from __future__ import annotations

import pytest

from tools import licences


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("MIT", False),
        ("Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND MIT", False),
        ("GPL-3.0 OR BSD-3-Clause", False),
        ("MIT AND (GPL-2.0 OR Apache-2.0)", False),
        ("GPL-3.0", True),
        ("MIT AND GPL-3.0", True),
        ("AGPL-3.0-only OR Proprietary", True),
        ("", True),
        ("License agreement for\nsomething", True),
    ],
)
def test_what_no_user_can_be_bound_to_unasked_is_refused(expression: str, wrong: bool) -> None:
    assert licences.refused(expression) is wrong


def test_every_dependency_stands_in_the_table_with_a_licence() -> None:
    rows = [line.split("|")[1:3] for line in licences.TABLE.read_text().splitlines() if line.startswith("| ")][1:]
    assert [name.strip() for name, _ in rows] == licences.packages(), "`python -m tools.licences` writes it"
    assert [name for name, licence in rows if licences.refused(licence.strip())] == []


def test_notice_and_packages_agree() -> None:
    found = {package: licences.licence_of(package) for package in licences.NOTICED}
    assert licences.untrue_notices(found) == []
    assert licences.untrue_notices(found | {"timm": "GPL-3.0"}) == ["NOTICE: timm is GPL-3.0"]
