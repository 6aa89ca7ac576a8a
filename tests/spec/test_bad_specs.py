"""What a user reads after a mistake, word for word: each bad/<mistake>.yaml beside the expected bad/<mistake>.txt."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ditr.spec.load import load_all, load_spec
from ditr.spec.problems import SpecErrors
from ditr.spec.registry import Registry
from ditr.spec.yaml_text import read_yaml

HERE = Path(__file__).parent
MISTAKES = sorted(file.stem for file in (HERE / "bad").glob("*.yaml") if not file.name.startswith("_"))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_message_of(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)
    with pytest.raises(SpecErrors) as raised:
        load_spec(Path("bad", f"{mistake}.yaml"), registry=Registry(HERE / "registry"))
    assert str(raised.value) == (HERE / "bad" / f"{mistake}.txt").read_text().rstrip("\n")


def test_aliases_are_refused_before_they_are_expanded(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{level}: &a{level} [*a{level - 1}, *a{level - 1}]" for level in range(1, 24))]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    source = read_yaml(tmp_path / "bomb.yaml")
    assert source.value is None
    said = [(problem.origin.line, problem.origin.col, problem.what) for problem in source.problems]
    assert said == [
        (1, 5, "an anchor (&a0) is not supported; share values through 'extends' (24 of them)"),
        (2, 10, "an alias (*a0) is not supported; write the value or use 'extends' (46 of them)"),
    ]


def test_every_expected_text_has_its_spec() -> None:
    assert sorted(file.stem for file in (HERE / "bad").glob("*.txt")) == MISTAKES


OVERRIDES = {
    "schedule.epoch=3": "--set schedule.epoch=3: schedule.epoch: unknown key; did you mean 'epochs'? "
    "allowed: epochs, batch_size, learning_rate, weight_decay, grad_clip_norm, decay, validate_every",
    "epochs=3": "--set epochs=3: epochs: unknown key; did you mean 'schedule.epochs'? allowed: name, description, "
    "tags, dataset, features, model, fusion, checkpoint, augmentation, loss, schedule, evaluation, esam_compat, seeds, "
    "max_seeds, checks, tracking, execution",
    "schedule.epochs=many": "--set schedule.epochs=many: schedule.epochs: must be a whole number; is 'many'",
    "schedule.epochs.first=1": "--set schedule.epochs.first=1: schedule.epochs: must be a whole number; is a map",
    "schedule.epochs": "--set schedule.epochs: must be path=value, such as schedule.epochs=2",
    "schedule.epochs=": "--set schedule.epochs=: schedule.epochs: no value; write null to switch a part off",
    "seeds[0]=3": "--set seeds[0]=3: seeds[0]: not a path; write keys with dots between, such as schedule.epochs "
    "(a list is replaced whole)",
    "a" + ".a" * 60 + "=1": f"--set a{'.a' * 60}=1: a{'.a' * 60}: not a path; write keys with dots between, such as "
    "schedule.epochs (a list is replaced whole)",
    "a" + ".a" * 2000 + "=1": f"--set a{'.a' * 96}.... (4,009 characters): a{'.a' * 99}.... (4,001 characters): not a "
    "path; write keys with dots between, such as schedule.epochs (a list is replaced whole)",
    "seeds=[1": "--set seeds=[1: seeds: this bracket is not closed, or a comma is missing after an item",
    "extends=other.yaml": "--set extends=other.yaml: extends: cannot be set; write a spec that extends the other file",
    "dataset.name=roms": "--set dataset.name=roms: dataset.name: 'roms' is not in registry/datasets; did you mean "
    "'rooms'? there: broken, half, real, rooms, rooms_big",
    "matrix.product.seeds=[0]": "--set matrix.product.seeds=[0]: matrix.product.seeds: cannot be set; write a sweep "
    "that extends this spec",
    "model.decoder.heads=7": "--set model.decoder.heads=7: model.decoder.width: must be a multiple of "
    "model.decoder.heads, 7; is 256",
    "features=null": "--set features=null: fusion.bifusion: needs 'features' (source, input_size), which is not there "
    "or null",
}


@pytest.mark.parametrize("override", OVERRIDES)
def test_message_of_an_override(override: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)
    with pytest.raises(SpecErrors) as raised:
        load_spec(Path("good/bifusion.yaml"), registry=Registry(HERE / "registry"), overrides=[override])
    assert str(raised.value) == f"{OVERRIDES[override]}\nerror[spec]: 1 mistake"


def test_an_override_given_twice_is_an_error_and_not_a_race() -> None:
    both = ["schedule.epochs=2", "schedule.epochs=3"]
    with pytest.raises(SpecErrors, match=r"--set schedule.epochs=3: schedule.epochs: set twice"):
        load_spec(HERE / "good/bifusion.yaml", registry=Registry(HERE / "registry"), overrides=both)


def test_a_missing_file_suggests_its_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)
    with pytest.raises(SpecErrors, match=r"^good/bifuson.yaml:1:1: no such file; did you mean 'bifusion.yaml'\?"):
        load_spec(Path("good/bifuson.yaml"), registry=Registry(HERE / "registry"))


def test_a_byte_order_mark_and_windows_line_ends_are_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "windows.yaml"
    file.write_bytes(b"\xef\xbb\xbfname: arm\r\ndataset: {name: rooms}\r\nschedule: {learning_rate: 1e-3}\r\n")
    spec = load_spec(file, registry=Registry(HERE / "registry")).spec
    assert (spec.name, spec.schedule.learning_rate) == ("arm", 0.001)


FRAGMENTS = ["!!int ", "!!bool ", '"\\ud800"', "&a [*a]", "[" * 60]
FRAGMENTS += [
    "\t",
    "- ",
    ": ",
    "{",
    "]",
    "null",
    "&a ",
    "*a",
    "!!str ",
    "'",
    '"',
    "#",
    "\n",
    "  ",
    "1e400",
    "0x",
    "|\n",
]
FRAGMENTS += [
    "? ",
    "---\n",
    "%A\n",
    "\x00",
    "\u2028",
    "<<: ",
    "@",
    "!<",
    "9" * 5000,
    ".inf",
    "~: 1",
    "[a]: 1",
    "1: 2",
    "{}",
]
TEXT = "extends: base.yaml\nname: arm\nfusion:\n  bifusion: {gate: lite}\n  injection: {scales: [8, 4]}\nseeds: [0]\n"
TEXT += "matrix:\n  product: {schedule.epochs: [2, 3]}\n  zip:\n    name: [a, b]\n    loss: [{}, {dice_aux: 1}]\n"
TEXT += "  include:\n  - {schedule.epochs: 1}\n"


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(TEXT)), st.integers(0, 4), st.sampled_from(FRAGMENTS)), max_size=3))
def test_whatever_is_written_is_a_spec_or_a_message(tmp_path: Path, edits: list[tuple[int, int, str]]) -> None:
    text = TEXT
    for position, cut, fragment in edits:
        text = text[:position] + fragment + text[position + cut :]
    (tmp_path / "base.yaml").write_text((HERE / "good/base.yaml").read_text())
    (tmp_path / "arm.yaml").write_text(text, encoding="utf-8")
    with contextlib.suppress(SpecErrors):
        load_all(tmp_path / "arm.yaml", registry=Registry(HERE / "registry"))


def test_a_file_without_an_end_is_refused_by_its_beginning() -> None:
    """Read whole, it would take the memory of the machine."""
    (problem,) = read_yaml(Path("/dev/zero")).problems
    assert "U+0000" in problem.what or "more than" in problem.what
