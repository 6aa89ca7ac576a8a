from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ditr.cli import main as cli
from ditr.spec.schema import json_schema

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def ditr(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs the command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["ditr", *arguments])
    with pytest.raises(SystemExit) as done:
        cli.main()
    return int(done.value.code or 0)


def test_validate_every_spec_as_a_shell_would_glob_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(file.relative_to(ROOT)) for file in sorted((ROOT / "specs").rglob("*.yaml"))]
    assert ditr("validate", *files, monkeypatch=monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert list(dict.fromkeys(line.partition(":")[0] for line in lines)) == files
    assert any(
        line.startswith("specs/fpn_inject.yaml: ok, name fpn_inject, variant fpn_inject, hash ") for line in lines
    )
    assert "specs/_base.yaml: a base, skipped as a spec; its keys and values are fine" in lines


def test_validate_says_everything_about_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DITR_REGISTRY", str(ROOT / "registry"))
    monkeypatch.chdir(tmp_path)
    Path("_base.yaml").write_text("dataset: {name: synthrooms}\nseeds: [x]\n")
    Path("one.yaml").write_text("extends: _base.yaml\nname: one\nschedule: {epoch: 1}\n")
    Path("two.yaml").write_text("extends: _base.yaml\nname: two\nfeatures: 3\n")
    Path("fine.yaml").write_text("name: fine\ndataset: {name: synthrooms}\n")
    assert ditr("validate", "one.yaml", "two.yaml", "fine.yaml", "_base.yaml", monkeypatch=monkeypatch) == 2
    out, err = capsys.readouterr()
    hashes = "hash [0-9a-f]{10} with minkowski or [0-9a-f]{10} with triton"
    assert re.match(f"fine.yaml: ok, name fine, variant baseline, {hashes}\n", out)
    assert [line.partition(": ")[0] for line in err.splitlines()] == [
        "_base.yaml:2:9",  # once, though three files have it
        "one.yaml:3:12",
        "two.yaml:3:11",
        "error[spec]",
    ]
    assert "Traceback" not in err


def test_show_names_the_origin_of_every_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ditr("show", "specs/fpn_inject.yaml", "--set", "schedule.epochs=2", monkeypatch=monkeypatch) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[2:]}
    assert rows["dataset.name"].split()[1:] == ["synthrooms", "specs/_base.yaml:2"]
    assert rows["schedule.epochs"].split()[1:] == ["2", "--set", "schedule.epochs=2"]
    assert rows["loss.dice_aux"].split()[1:] == ["1.0", "specs/_base.yaml:18"]
    assert rows["fusion.injection.scales"].endswith("specs/fpn_inject.yaml:7")
    assert "[420, 560]" in rows["features.input_size"]


def test_a_spec_of_a_sweep_is_shown_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = "specs/sweeps/single_scales.yaml"
    assert ditr("show", f"{sweep}::inject_only_scales_4", monkeypatch=monkeypatch) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        f"{sweep}::inject_only_scales_4: name inject_only_scales_4, variant custom (injection), hash "
    )
    rows = {line.split()[0]: line for line in out.splitlines()[2:]}
    assert rows["fusion.injection.scales"].split()[1:] == ["[4]", f"{sweep}:7"]
    assert ditr("show", sweep, monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err == (
        f"{sweep}:5:1: matrix: a sweep of 4 specs, and one is needed here; name it, such as "
        f"{sweep}::inject_only_scales_8\nerror[spec]: 1 mistake\n"
    )


def test_diff_prints_only_what_differs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ditr("diff", "specs/baseline.yaml", "specs/bifusion.yaml", monkeypatch=monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["path", "name", "fusion.bifusion"]


def test_diff_of_equal_specs_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ditr("diff", "specs/baseline.yaml", "specs/baseline.yaml", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == "Both state the same experiment: nothing that differs can change a number.\n"


def test_schema_prints_the_schema(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ditr("schema", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()


def test_validate_imports_nothing_heavy() -> None:
    code = (
        "import sys; from ditr.cli import main; sys.argv = ['ditr', 'validate', 'specs/baseline.yaml']\n"
        "try:\n    main.main()\nexcept SystemExit as done:\n    assert not done.code\n"
        "print(sorted({'torch', 'mlflow', 'duckdb', 'timm', 'MinkowskiEngine', 'torchvision', 'matplotlib', 'scipy'} "
        "& set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
