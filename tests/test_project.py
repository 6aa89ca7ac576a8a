"""A project of the user's own: where its things lie, its registry over the built-in one, code that it brings."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from ditr import paths, plugins
from ditr.errors import DitrError
from ditr.profiles import RayProfile, SlurmProfile
from ditr.project import PROJECT_FILE, find_project
from ditr.spec.load import load_spec
from ditr.spec.problems import SpecErrors
from ditr.spec.registry import Registry
from tests.reference.another_process import forget_code


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project that is the working directory, with no store set by the environment."""
    for variable in ("DITR_RUNS", "DITR_DATA", "DITR_WEIGHTS", "DITR_CACHE", "DITR_REGISTRY"):
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "project"
    folder.mkdir()
    forget_code()
    (folder / "ditr.toml").touch()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # kept by the second of writing, in which there are several
    return folder


def test_stores_are_the_projects_from_any_folder_of_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "specs" / "deep").mkdir(parents=True)
    monkeypatch.chdir(project / "specs" / "deep")
    assert (paths.runs_dir(), paths.data_dir()) == (project / "runs", project / "data")
    (project / "ditr.toml").write_text('[folders]\ndata = "/mnt/scans"\ncache = "made"\n')
    assert (paths.data_dir(), paths.cache_dir()) == (Path("/mnt/scans"), project / "made")
    monkeypatch.setenv("DITR_DATA", str(project / "other"))
    assert paths.data_dir() == project / "other"


@pytest.mark.parametrize("name", ["q?u", "q\\u", "q%20u"])
def test_a_folder_of_runs_whose_databases_would_be_elsewhere_is_refused(
    name: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITR_RUNS", str(project / name))
    with pytest.raises(DitrError, match=r"in its path") as told:
        paths.runs_dir()
    assert told.value.where == str(project / name)
    monkeypatch.setenv("DITR_RUNS", str(project / "100% q#u"))
    assert paths.runs_dir() == project / "100% q#u"


def test_without_a_project_stores_are_the_users_and_never_ditrs_own_folder(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert find_project() is None
    assert paths.runs_dir() == tmp_path / "share" / "ditr" / "runs"
    assert paths.cache_dir() == tmp_path / "cache" / "ditr"
    assert "synthrooms" in Registry().names("datasets")


@pytest.mark.parametrize(
    "text", ["[folders]\nrun = 'x'\n", "[fusion]\nfilm = 'film.py'\n", "[folders", "[folder]\n", "\xff"]
)
def test_a_wrong_project_file_is_named(project: Path, text: str) -> None:
    (project / "ditr.toml").write_text(text, encoding="latin-1")
    with pytest.raises(DitrError) as raised:
        find_project()
    assert raised.value.where == str(project / "ditr.toml")


def test_an_entry_of_the_project_stands_over_the_built_in_one_and_hides_no_other(project: Path) -> None:
    own = project / "registry" / "datasets" / "synthrooms_tiny.yaml"
    own.parent.mkdir(parents=True)
    built_in = paths.builtin_dir() / "registry" / "datasets" / "synthrooms_tiny.yaml"
    own.write_text(built_in.read_text().replace("seed: ", "seed: 7"))
    registry = Registry()
    assert registry.dataset("synthrooms_tiny") != Registry(paths.builtin_dir() / "registry").dataset("synthrooms_tiny")
    assert registry.hidden("datasets", "synthrooms_tiny") == built_in
    assert registry.hidden("datasets", "synthrooms") is None
    assert set(registry.names("datasets")) == set(Registry(paths.builtin_dir() / "registry").names("datasets"))


def test_a_spec_extends_one_that_comes_with_ditr(project: Path) -> None:
    (project / "mine.yaml").write_text("extends: ditr:fpn_inject.yaml\nname: mine\n")
    spec = load_spec(project / "mine.yaml", registry=Registry()).spec
    assert spec.fusion.injection is not None
    (project / "mine.yaml").write_text("extends: ditr:fpn_injekt.yaml\nname: mine\n")
    with pytest.raises(SpecErrors, match=r"mine.yaml:1:10: extends: .*did you mean 'fpn_inject.yaml'"):
        load_spec(project / "mine.yaml", registry=Registry())


def digest(reference: str) -> str:
    """As a process that starts now takes it."""
    forget_code()
    return plugins.code_digest(reference)


def test_code_of_the_project_is_loaded_and_its_digest_follows_what_it_imports(project: Path, tmp_path: Path) -> None:
    package = project / "radio"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "encoder.py").write_text("from . import parts\nimport numpy\nclass Encoder: width = parts.WIDTH\n")
    (package / "parts.py").write_text("WIDTH = 3\n")
    (package / "other.py").write_text("")
    assert plugins.load("radio.encoder:Encoder", where="entry").width == 3
    before = digest("radio.encoder:Encoder")
    (package / "other.py").write_text("# nobody imports this")
    installed = project / ".venv" / "site-packages" / "numpyish"
    installed.mkdir(parents=True)
    sys.path.append(str(installed.parent))
    (installed / "__init__.py").touch()
    assert digest("radio.encoder:Encoder") == before
    (tmp_path / "elsewhere.py").write_text("WIDTH = 3\n")
    (project / "linked.py").symlink_to(tmp_path / "elsewhere.py")
    (project / "unsound.py").write_text("def (:")
    (package / "encoder.py").write_text("import numpyish, linked, unsound\n")
    before = digest("radio.encoder:Encoder")
    (installed / "__init__.py").write_text("# another version of what is installed in the project's own environment")
    assert digest("radio.encoder:Encoder") == before
    for file in (package / "__init__.py", package / "encoder.py", tmp_path / "elsewhere.py", project / "unsound.py"):
        file.write_text(file.read_text() + "# an edit\n")
        assert digest("radio.encoder:Encoder") != before, file
        before = digest("radio.encoder:Encoder")


def test_a_process_has_the_code_that_it_saw_first_or_refuses(project: Path) -> None:
    file = project / "gate.py"
    file.write_text("WIDTH = 3\n")
    first = plugins.code_digest("gate:WIDTH")
    file.write_text("WIDTH = 44\n")
    for _ in range(2):
        with pytest.raises(DitrError, match="the code of gate has changed since this process began"):
            plugins.load("gate:WIDTH", where="entry")
    assert plugins.code_digest("gate:WIDTH") == first
    forget_code("gate")
    assert plugins.load("gate:WIDTH", where="entry") == 44
    second = plugins.code_digest("gate:WIDTH")
    file.write_text("WIDTH = 555\n")
    assert (plugins.load("gate:WIDTH", where="entry"), plugins.code_digest("gate:WIDTH")) == (44, second)


def test_importing_a_module_prints_nothing_into_a_commands_output_and_changes_no_numbers_of_others(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "talker.py").write_text("print('hello')\nX = 1\n")
    plugins.load("talker:X", where="entry")
    assert capsys.readouterr() == ("", "hello\n")
    (project / "doubles.py").write_text("import torch\ntorch.set_default_dtype(torch.float64)\nX = 1\n")
    try:
        for _ in range(2):
            with pytest.raises(DitrError, match=r"importing doubles changes torch.get_default_dtype\(\)"):
                plugins.load("doubles:X", where="entry")
    finally:
        torch.set_default_dtype(torch.float32)


def test_code_that_cannot_be_loaded_is_said_with_its_place(project: Path) -> None:
    (project / "broken.py").write_text("x = 1\ny = 1 / 0\n")
    with pytest.raises(DitrError, match=r"cannot import broken: ZeroDivisionError.*broken.py:2"):
        plugins.load("broken:Encoder", where="entry")
    (project / "unsound.py").write_text("x = 1\ndef (:\n")
    with pytest.raises(DitrError, match=r"cannot import unsound: SyntaxError: .*project/unsound.py:2\)"):
        plugins.load("unsound:Encoder", where="entry")
    (project / "leaver.py").write_text("import sys\nsys.exit('no GPU')\n")
    with pytest.raises(DitrError, match=r"cannot import leaver: SystemExit: no GPU .*leaver.py:2"):
        plugins.load("leaver:Encoder", where="entry")
    with pytest.raises(DitrError, match="No module named 'absent'"):
        plugins.load("absent:Encoder", where="entry")
    (project / "empty.py").write_text("class Encodr: pass\n")
    with pytest.raises(DitrError, match="has no Encoder; it has Encodr"):
        plugins.load("empty:Encoder", where="entry")


def test_what_is_handed_on_names_stores_and_no_place(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DITR_WEIGHTS", str(home / "weights"))
    link = tmp_path / "link"
    link.symlink_to(project)
    builtin = Path(paths.__file__).parent / "builtin" / "registry" / "x.yaml"
    for path, shown in {
        project / "data" / "rooms": "$DITR_DATA/rooms",
        project / "runs": "$DITR_RUNS",
        project / "specs" / "a.yaml": "specs/a.yaml",
        project: ".",
        home / "weights" / "w.pth": "$DITR_WEIGHTS/w.pth",
        home / "esam" / "x.log": "~/esam/x.log",
        builtin: "ditr:registry/x.yaml",
        Path("/mnt/secret_client/x.log"): "x.log",
        Path("/mnt") / str(home)[1:] / "x.log": "x.log",
        Path("specs/b.yaml"): "specs/b.yaml",
    }.items():
        assert paths.portable_path(path) == shown
    text = f'--out={project}/a {project}s file://{home}/b, "{home}"'
    assert paths.portable_text(text) == f'--out=a $TMPDIR/{project.relative_to(tempfile.gettempdir())}s file://~/b, "~"'


def test_profiles_are_read_by_their_launcher_and_a_wrong_one_is_told_by_its_field(tmp_path: Path) -> None:
    file = tmp_path / PROJECT_FILE
    file.write_text('[profiles.slurm]\ngpus = 2\n[profiles.a100]\nlauncher = "slurm"\nhours = 0.5\n[profiles.ray]\n')
    project = find_project(tmp_path)
    assert project is not None
    assert project.profiles == {"slurm": SlurmProfile(gpus=2), "a100": SlurmProfile(hours=0.5), "ray": RayProfile()}
    for text, field in (
        ("[profiles.slurm]\npartitions = 'x'\n", "profiles.slurm.slurm.partitions"),
        ("[profiles.ray]\nhours = 1\n", "profiles.ray.ray.hours"),
        ("[profiles.mine]\ngpus = 1\n", "profiles.mine"),
        ("profiles = 3\n", "profiles"),
        ("[profiles.ray]\ngpus = 3\nruns_a_job = 2\n", "profiles.ray.ray"),
    ):
        file.write_text(text)
        with pytest.raises(DitrError, match=f" {re.escape(field)}: ") as caught:
            find_project(tmp_path)
        assert caught.value.where == str(file)
