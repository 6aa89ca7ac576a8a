"""Trains the 3D-only weights that the arms on synthrooms start from, and puts them into the registry.

    python tools/make_checkpoint.py [specs/pretrain/synthrooms_res16unet_mini.yaml]

Runs the spec like any other (a stopped run goes on), then copies the weights to registry/checkpoints, writes their
digest into the entry of the spec's name, and keeps the resolved spec, the log and the result beside them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from ditr.catalog import sha256_of
from ditr.paths import registry_dirs, runs_dir
from ditr.runner.execution import settle
from ditr.spec.identity import run_key, spec_hash
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry

KEPT = ("spec.resolved.yaml", "log.txt", "result.json")


def main(path: Path = Path("specs/pretrain/synthrooms_res16unet_mini.yaml")) -> int:
    registry = Registry()
    spec = load_spec(path, registry=registry).spec
    done = subprocess.run([sys.executable, "-m", "ditr.cli.main", "run", str(path)], check=False)
    if done.returncode != 0:
        return done.returncode
    seed = spec.seeds[0]
    key = run_key(spec_hash(settle(spec), registry=registry), seed)
    run = runs_dir() / f"{spec.name}-s{seed}-{key}"
    weights = Path(shutil.copy(run / "checkpoints" / "model.safetensors", _folder() / f"{spec.name}.safetensors"))
    beside = _folder() / spec.name
    beside.mkdir(exist_ok=True)
    for name in KEPT:
        shutil.copy(run / name, beside / name)
    ap50 = json.loads((run / "result.json").read_text())["ap50"]
    entry = _folder() / f"{spec.name}.yaml"
    entry.write_text(_pinned(entry.read_text(), sha256=sha256_of(weights), ap50=ap50))
    print(f"{weights}: {weights.stat().st_size / 2**20:.1f} MiB, AP50 {ap50:.4f} on its own validation rooms")
    return 0


def _folder() -> Path:
    return registry_dirs()[0] / "checkpoints"


def _pinned(text: str, *, sha256: str, ap50: float) -> str:
    """The entry with the description and the digest of the new weights."""
    said = f"A small Res16UNet, 3D only, from scratch on synthrooms_pretrain; AP50 {ap50:.3f} on that set's val rooms."
    lines = []
    for line in text.splitlines():
        key = line.split(":")[0]
        lines.append({"description": f"description: {said}", "sha256": f"sha256: {sha256}"}.get(key, line))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
