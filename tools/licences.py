"""Lists the licence of every locked dependency in docs/licences.md, from what installed packages say of themselves.

    python -m tools.licences           writes the table
    python -m tools.licences --check   says what of it is not so, and ends with 1

A package whose licence nobody has allowed here stops both: add the licence below if ditr's users can live with it, or
do without the package. Needs the set-up environment, and no network.
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK, TABLE = ROOT / "requirements.lock", ROOT / "docs" / "licences.md"
BESIDE_THE_LOCK = ("torch", "torchvision", "triton", "MinkowskiEngine")
"""Those that tools/setup.py installs by name."""
NOTICED = {"torch": "PyTorch", "MinkowskiEngine": "MinkowskiEngine", "triton": "Triton", "timm": "timm"}
"""Package -> what NOTICE calls it."""
ALLOWED = (
    *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0"),
    *("CC0-1.0", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Zlib"),
    "MPL-2.0",  # asks for its own files' source alone, and ditr changes none of them
)
_SAME = {
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 2-Clause License": "BSD-2-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT license": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""What packages write -> SPDX's name; "BSD" alone does not say how many clauses."""
_READ = {"huey": "MIT", "openexr": "BSD-3-Clause", "skops": "MIT"}
"""Read in the licence file of a package that states none in its metadata."""
_HEADER = """# Licences of what is installed beside ditr

Made by `python -m tools.licences` from the metadata of the packages in `requirements.lock` and of those that set-up
adds; `make audit` holds it against them. None of them is part of this repository. "BSD" is said by packages that do not
say how many clauses. A build of torch for NVIDIA GPUs also installs NVIDIA's libraries of CUDA, which are not free
software: they come under NVIDIA's own terms.

| package | licence |
|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    try:
        found = {name: licence_of(name) for name in packages()}
    except metadata.PackageNotFoundError as error:
        sys.exit(f"{error.name} is in {LOCK.name} and not installed: run make setup")
    problems = [
        f"{name}: the licence {licence!r} is not allowed" for name, licence in found.items() if refused(licence)
    ]
    problems += untrue_notices(found)
    text = table(found)
    if check and TABLE.read_text(encoding="utf-8") != text:
        problems.append(f"{TABLE.relative_to(ROOT)} is not of these packages: run `python -m tools.licences`")
    if problems:
        sys.exit("\n".join(problems))
    if not check:
        TABLE.write_text(text, encoding="utf-8")
    print(f"{len(found)} packages, all of licences that are allowed")


def packages() -> list[str]:
    """Names of all that set-up installs, in the order of the alphabet."""
    locked = [line.partition("==")[0] for line in LOCK.read_text().splitlines() if "==" in line]
    return sorted([*locked, *BESIDE_THE_LOCK], key=str.lower)


def licence_of(package: str) -> str:
    """SPDX's expression as the package states it, or names joined by AND from older fields of its metadata."""
    if (known := _READ.get(package.lower())) is not None:
        return known
    said = metadata.metadata(package)
    if expression := said.get("License-Expression"):
        return str(expression)
    classifiers = [
        name.rpartition(" :: ")[2] for name in said.get_all("Classifier") or [] if name.startswith("License")
    ]
    named = classifiers or [str(said.get("License") or "").strip()]
    return " AND ".join(sorted({_SAME.get(name, name) for name in named}))


def refused(expression: str) -> bool:
    """Whether something under an expression comes under no licence that is allowed: of an OR, one of them is enough."""
    every = re.split(r"\bAND\b", expression)
    return not all(any(one.strip(" ()") in ALLOWED for one in re.split(r"\bOR\b", part)) for part in every)


def untrue_notices(found: dict[str, str]) -> list[str]:
    """Of the packages that NOTICE names with a licence, those that say another one."""
    lines = (ROOT / "NOTICE").read_text(encoding="utf-8").splitlines()
    said = {
        package: next((line for line in lines if line.split()[:1] == [name]), "") for package, name in NOTICED.items()
    }
    return [
        f"NOTICE: {NOTICED[package]} is {found[package]}"
        for package, line in said.items()
        if not any(one.strip() in line for one in re.split(r"\bAND\b", found[package]))
    ]


def table(found: dict[str, str]) -> str:
    return _HEADER + "".join(f"| {name} | {licence} |\n" for name, licence in found.items())


if __name__ == "__main__":
    main()
