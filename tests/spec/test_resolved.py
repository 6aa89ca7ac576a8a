"""A run's spec is read as long as the models know it, whatever became of the registry."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ditr.errors import DitrError
from ditr.spec.dump import to_yaml
from ditr.spec.execution import with_engine
from ditr.spec.load import load_spec
from ditr.spec.problems import SpecErrors
from ditr.spec.registry import Registry
from ditr.spec.resolved_spec import read_resolved

HERE = Path(__file__).parent
STUDY = sorted((HERE.parents[1] / "docs/study/runs").glob("*/spec.resolved.yaml"))
SPEC = load_spec(HERE / "good/bifusion.yaml", registry=Registry(HERE / "registry")).spec
TEXT = to_yaml(with_engine(SPEC, "triton"))


def test_specs_of_older_versions_are_read() -> None:
    specs = [read_resolved(file) for file in STUDY]
    assert [file.parent.name.rpartition("-s")[0] for file in STUDY] == [spec.name for spec in specs]
    assert specs
    assert {(spec.execution.engine, spec.execution.precision) for spec in specs} == {("minkowski", "float32")}, (
        "there was no other when they ran"
    )


def test_entries_that_are_gone_or_broken_do_not_matter(tmp_path: Path) -> None:
    shutil.copytree(HERE / "registry", tmp_path / "registry")
    for entry in ("features/vit14.yaml", "checkpoints/unet34c.yaml"):
        (tmp_path / "registry" / entry).unlink()
    (tmp_path / "registry/datasets/rooms.yaml").write_text("kind: synthrooms\n")
    file = tmp_path / "spec.resolved.yaml"
    file.write_text(TEXT)
    with pytest.raises(SpecErrors):
        load_spec(file, registry=Registry(tmp_path / "registry"))
    assert to_yaml(read_resolved(file)) == TEXT


@pytest.mark.parametrize("content", [b"", b"- 1", b"name: \xff", b"name: [", b"name: arm\x00", b"seeds: [0]", b"&a {}"])
def test_what_is_no_spec_is_one_error_with_the_file_and_what_to_do(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "spec.resolved.yaml"
    file.write_bytes(content)
    with pytest.raises(DitrError) as raised:
        read_resolved(file)
    assert (raised.value.where, raised.value.code) == (str(file), "run")
    assert raised.value.fix
    for absent in (tmp_path, tmp_path / "nothing.yaml"):
        with pytest.raises(DitrError, match="no resolved spec"):
            read_resolved(absent)


def test_what_another_version_says_is_named_at_its_place(tmp_path: Path) -> None:
    file = tmp_path / "spec.resolved.yaml"
    file.write_text(TEXT.replace("epochs:", "eras:"))
    line = TEXT[: TEXT.index("epochs:")].count("\n") + 1
    with pytest.raises(DitrError, match=rf"spec\.resolved\.yaml:{line}:3: schedule\.eras: unknown key"):
        read_resolved(file)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(TEXT) - 1), st.integers(0, 255)), min_size=1, max_size=3))
def test_damaged_bytes_are_a_spec_or_the_one_error(tmp_path: Path, edits: list[tuple[int, int]]) -> None:
    content = bytearray(TEXT.encode())
    for position, byte in edits:
        content[position] = byte
    file = tmp_path / "spec.resolved.yaml"
    file.write_bytes(bytes(content))
    with contextlib.suppress(DitrError):
        read_resolved(file)
