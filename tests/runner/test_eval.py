"""An evaluation without a training gives a run's numbers, and never takes a result away."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from ditr.catalog import sha256_of
from ditr.cli.main import app
from ditr.data.dataset import Dataset
from ditr.errors import Code, DitrError, Interrupted
from ditr.paths import project_dir
from ditr.progress import Progress, silent
from ditr.record.folder import Record
from ditr.record.recording import DRAFTS
from ditr.record.views.results import Results
from ditr.record.views.teller import Teller
from ditr.runner import evaluate_checkpoint as module
from ditr.runner.evaluate_checkpoint import CheckpointEvaluation, evaluate_checkpoint
from ditr.runner.execution import settle
from ditr.runner.host import Host
from ditr.runner.inputs import Selection, build_model
from ditr.runner.plan import plan
from ditr.runner.run import run_all
from ditr.runner.stop import StopSignal
from ditr.spec.load import LoadedSpec, load_spec
from ditr.spec.problems import SpecErrors
from ditr.spec.registry import Registry
from ditr.spec.resolved_spec import read_resolved
from tests.reference.finished_runs import finish_anew

REGISTRY = Registry()
PINNED = REGISTRY.folders[0] / "checkpoints" / "synthrooms_res16unet_mini.safetensors"
OVERRIDES = (
    "dataset.name=synthrooms_tiny",
    "checkpoint=null",
    "schedule.epochs=1",
    "schedule.batch_size=2",
    "execution.workers=0",
    "tracking.mlflow=false",
)


def load(name: str, *overrides: str) -> LoadedSpec:
    path = project_dir() / "specs" / f"{name}.yaml"
    given = {override.partition("=")[0]: override for override in (*OVERRIDES, *overrides)}
    return load_spec(path, registry=REGISTRY, overrides=tuple(given.values()))


def host(said: list[str] | None = None, *, progress: Progress = silent) -> Host:
    say = [].append if said is None else said.append
    return Host(
        registry=REGISTRY,
        progress=progress,
        say=say,
        stop=StopSignal(),
        draw=lambda folder, found: None,
        teller=Teller((), say=print),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, session_cache: Path, tiny_dataset: Dataset) -> Path:
    """A runs folder with a run of the arm with all parts."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DITR_CACHE", str(session_cache))
        planned = plan([load("fpn_inject")], registry=REGISTRY, runs=runs, force=False)
        (outcome,) = run_all(planned, host=host())
    assert outcome.error is None
    return runs


def run_of(trained: Path) -> Record:
    (folder,) = trained.glob("fpn_inject-s0-*")
    return Record(folder)


def evaluate(
    runs: Path, checkpoint: Path, *overrides: str, spec: str = "fpn_inject", using: Host | None = None, **select: Any
) -> CheckpointEvaluation:
    selection = Selection(**select)
    loaded = load(spec, *overrides)
    return evaluate_checkpoint(loaded, checkpoint=checkpoint, selection=selection, host=using or host(), runs=runs)


def left(runs: Path) -> list[str]:
    """What an evaluation left behind, locks apart."""
    return sorted(path.name for path in runs.iterdir() if path.name != ".locks") if runs.is_dir() else []


def rows(folder: Record) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in folder.frames.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "infer_ms"} for row in read]


def test_a_runs_weights_give_its_numbers_and_matches(trained: Path, tmp_path: Path) -> None:
    run = run_of(trained)
    found = evaluate(tmp_path, run.path, "checkpoint={kind: file, path: nowhere.pth, format: esam}")
    assert found.error is None
    expected = json.loads(run.result.read_text())
    same = (
        "ap",
        "ap50",
        "ap25",
        "ap_to_90",
        "valid_ratio",
        "params_m",
        "n_frames",
        "split",
        "dataset_digest",
        "scales",
    )
    assert {name: found.result[name] for name in same} == {name: expected[name] for name in same}
    assert found.result.keys() >= {"excluded_frames", "intrinsics", "esam_compat", "esam_differences", "git", "device"}
    assert rows(found.folder) == rows(run)
    assert found.folder.matches.read_bytes() == run.matches.read_bytes()
    assert found.result["checkpoint"] == f"$TMPDIR/{run.weights.relative_to(tempfile.gettempdir())}"
    assert found.result["peak_mem_mb"] > 50
    state = found.folder.state()
    assert state is not None
    assert (state.kind, state.seed, state.state) == ("eval", None, "finished")
    facts = json.loads(found.folder.provenance.read_text())
    assert facts["evaluated_weights"]["missing"] == []
    assert len(facts["evaluated_weights"]["sha256"]) == 64
    for record in (run, found.folder):
        execution = read_resolved(record.spec).execution
        assert "engine: minkowski" in record.spec.read_text(), "what the spec left open is decided"
        for said in (execution.model_dump(), record.read_result(), record.read_provenance() or {}):
            assert (said["engine"], said["precision"]) == ("minkowski", "float32")
    sql = "select kind, ap, n_frames, step_ms is null from results"
    results = Results(tmp_path)
    assert results.query(sql).rows == (("eval", expected["ap"], 2, True),)
    results.rebuild()
    assert results.query(sql).rows == (("eval", expected["ap"], 2, True),)


def test_what_decides_the_numbers_decides_the_key(trained: Path, tmp_path: Path) -> None:
    """Fewer frames are another row; all of them, however asked for, and another schedule are the same."""
    run = run_of(trained)
    whole = evaluate(tmp_path, run.weights, frames=2)
    again = evaluate(tmp_path, run.weights, "schedule.learning_rate=0.5", "name=other")
    assert again.folder.path.name.rpartition("-")[2] == whole.folder.path.name.rpartition("-")[2]
    assert again.replaced is not None
    assert again.replaced.name.startswith("fpn_inject-eval-")
    part = evaluate(tmp_path, run.weights, frames=1)
    assert (part.result["n_frames"], part.split_frames, part.replaced) == (1, 2, None)
    assert evaluate(tmp_path, run.weights, split="train", frames=1).result["split"] == "train"
    asked = Results(tmp_path).query("select name, split, n_frames from results order by all").rows
    assert asked == (("fpn_inject", "train", 1), ("fpn_inject", "val", 1), ("other", "val", 2))


def test_a_failing_second_evaluation_leaves_the_first(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(trained)
    first = evaluate(tmp_path, run.weights)
    before = left(tmp_path)
    content = first.folder.result.read_bytes()

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "evaluate" and done:
            raise Interrupted

    with pytest.raises(Interrupted):
        evaluate(tmp_path, run.weights, using=host(progress=interrupt))
    assert left(tmp_path) == before

    def fail(*given: object, **named: object) -> NoReturn:
        raise ZeroDivisionError("in the middle")

    monkeypatch.setattr(module, "assess", fail)
    with pytest.raises(ZeroDivisionError) as error:
        evaluate(tmp_path, run.weights)
    (note,) = error.value.__notes__
    assert "in the middle" in Path(note.removeprefix("traceback: ")).read_text()
    assert left(tmp_path) == sorted([*before, DRAFTS])
    assert first.folder.result.read_bytes() == content
    assert Results(tmp_path).query("select count(*) from results").rows == ((1,),)


def test_a_picture_that_fails_costs_no_number(trained: Path, tmp_path: Path) -> None:
    def fail(folder: Record, found: object) -> None:
        raise OSError("no room")

    using = Host(
        registry=REGISTRY, progress=silent, say=print, stop=StopSignal(), draw=fail, teller=Teller((), say=print)
    )
    found = evaluate(tmp_path, run_of(trained).weights, using=using)
    assert isinstance(found.error, OSError)
    assert "no room" in found.folder.log_file.read_text()
    assert Results(tmp_path).query("select state from results").rows == (("finished",),)


def test_weights_of_another_model_are_refused_before_anything_is_made(trained: Path, tmp_path: Path) -> None:
    weights = run_of(trained).weights
    mask3d = tmp_path / "mask3d.safetensors"
    save_file({name: tensor for name, tensor in load_file(weights).items() if name.startswith("backbone.")}, mask3d)
    other = tmp_path / "other.safetensors"
    save_file({"encoder.weight": load_file(weights)["pool.pts_proj1.0.weight"]}, other)
    (tmp_path / "empty").mkdir()
    runs = tmp_path / "runs"
    for checkpoint, spec, message in (
        (weights, "baseline", "have no place"),
        (mask3d, "fpn_inject", "has no decoder, so there is nothing to evaluate"),
        (other, "fpn_inject", "no weights of this model"),
        (tmp_path / "empty", "fpn_inject", "no weights of a finished run in this folder"),
        (tmp_path / "none.pth", "fpn_inject", "no such file|no weight file"),
    ):
        with pytest.raises(DitrError, match=message) as error:
            evaluate(runs, checkpoint, spec=spec)
        assert error.value.code is Code.CHECKPOINT
        assert left(runs) == []


@pytest.mark.parametrize("at", [-3, -100_000, 40])
def test_one_changed_bit_of_a_runs_weights_is_noticed_wherever_they_are_taken(
    at: int, trained: Path, tmp_path: Path
) -> None:
    content = bytearray(run_of(trained).weights.read_bytes())
    content[at] ^= 1
    damaged = Record(tmp_path / "copy")
    damaged.weights.parent.mkdir(parents=True)
    damaged.weights.write_bytes(content)
    for checkpoint in (damaged.path, damaged.weights):
        with pytest.raises(DitrError, match="damaged"):
            evaluate(tmp_path / "runs", checkpoint)
    start = load("fpn_inject", f"checkpoint={{kind: file, path: {damaged.weights}, format: ditr}}").spec
    with pytest.raises(DitrError, match="damaged"):
        build_model(settle(start), seed=0, registry=REGISTRY, feature_channels=24)


def test_weights_that_nothing_can_vouch_for_are_said_to_be_so(trained: Path, tmp_path: Path) -> None:
    save_file(load_file(run_of(trained).weights), tmp_path / "foreign.safetensors")
    said: list[str] = []
    evaluate(tmp_path, tmp_path / "foreign.safetensors", using=host(said))
    digest = sha256_of(tmp_path / "foreign.safetensors")
    assert f"  nothing shows whether the file is damaged; what pins it is  sha256: {digest}" in said
    said.clear()
    evaluate(tmp_path, run_of(trained).path, using=host(said))
    evaluate(tmp_path, PINNED, spec="baseline", using=host(said))
    assert not [line for line in said if "damaged" in line]


def test_a_torch_file_of_the_plain_model_is_evaluated_as_esams(trained: Path, tmp_path: Path) -> None:
    plain = {
        name: tensor
        for name, tensor in load_file(run_of(trained).weights).items()
        if name.startswith(("backbone.", "pool.", "decoder."))
    }
    esam = tmp_path / "epoch_128.pth"
    torch.save({"state_dict": plain, "meta": {"epoch": 128}}, esam)
    runs = tmp_path / "runs"
    found = evaluate(runs, esam, spec="baseline")
    assert found.result["evaluated_weights"]["format"] == "esam"
    assert found.result["checkpoint"] == f"$TMPDIR/{esam.relative_to(tempfile.gettempdir())}"
    assert found.result["n_frames"] == 2
    with pytest.raises(DitrError, match="24 entries of the model are not in the file, of bifusion"):
        evaluate(runs, esam, spec="bifusion")
    assert len(left(runs)) == 1, "the evaluation"


def test_what_the_weights_were_trained_with_is_compared(trained: Path, tmp_path: Path) -> None:
    said: list[str] = []
    evaluate(tmp_path, run_of(trained).path, "features.sampling=nearest", using=host(said), frames=1)
    assert "  they were trained with features.sampling bilinear, here nearest" in said
    assert sum("they were trained with" in line for line in said) == 1


def test_a_run_outlives_the_entries_of_the_registry_that_it_named(
    trained: Path, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    """Its weights are evaluated, and its frames seen, without the checkpoint that it began from."""
    run = Record(shutil.copytree(run_of(trained).path, tmp_path / "run"))
    text = run.spec.read_text()
    assert "checkpoint: null" in text
    run.spec.write_text(text.replace("checkpoint: null", "checkpoint: {kind: registry, name: gone}"))
    finish_anew(run)
    with pytest.raises(SpecErrors, match="'gone' is not in registry"):
        load_spec(run.spec, registry=REGISTRY)
    said: list[str] = []
    evaluate(tmp_path / "runs", run.path, "features.sampling=nearest", using=host(said), frames=1)
    assert "  they were trained with features.sampling bilinear, here nearest" in said
    picture = tmp_path / "seen.png"
    seen = CliRunner().invoke(app, ["view", str(run.path), tiny_dataset.val.ids[0], "--out", str(picture)])
    assert seen.exit_code == 0, seen.output
    assert picture.is_file()
