"""Records of every layout that ditr has had are read, listed, compared and shown; one of a layout to come says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import ditr
from ditr import layouts
from ditr.data.frame_view import load_views
from ditr.errors import DitrError
from ditr.evaluation.instance_facts import load_instances
from ditr.evaluation.match_table import MatchTable
from ditr.features.store import FeatureStore
from ditr.features.stored_maps import stores
from ditr.files import write_json
from ditr.record.folder import Record, records_in
from ditr.record.recording import Identity, begin
from ditr.record.state import UnreadableRecord
from ditr.record.views.mlflow_view import MlflowView
from ditr.record.views.results import Results
from ditr.record.views.tracked import tracked
from ditr.report.arms import all_arms
from ditr.report.compare import compare
from ditr.report.page import report_page
from ditr.report.stratum_contrasts import by_stratum
from ditr.spec.load import load_spec
from ditr.spec.problems import SpecErrors
from ditr.spec.registry import Registry
from ditr.spec.resolved_spec import read_resolved

# Of libraries under MLflow, not of ditr.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
LAYOUTS = Path(__file__).with_name("layouts")
RUN = "fpn_inject-s0-4b64e355e1"
ROWS = {
    ("run", "fpn_inject", "fpn_inject", 0, 0.2625, 2, True),
    ("eval", "baseline", "baseline", None, 0.2660, 2, False),
    ("check", "fpn_inject", "fpn_inject", 0, None, 0, False),
    ("imported", "esam_sv_scannet200_ca", "imported", None, 0.5, 0, True),
}
"""Kind, name, variant, seed, AP50, rows of frames and whether metrics were logged, as these records' own files say."""


@pytest.fixture(params=sorted(path.name for path in LAYOUTS.iterdir() if path.is_dir()))
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(LAYOUTS / request.param, tmp_path / "runs"))


def test_there_is_a_record_of_every_layout() -> None:
    assert {path.name for path in LAYOUTS.iterdir() if path.is_dir()} == {
        str(number) for number in range(1, layouts.RECORD + 1)
    }


def test_they_are_listed_with_their_numbers(runs: Path) -> None:
    sql = (
        "select kind, name, variant, seed, round(ap50, 4), "
        "(select count(*) from frames f where f.run_key = r.run_key), "
        "(select count(*) > 0 from metrics m where m.run_key = r.run_key) from results r"
    )
    assert set(Results(runs).query(sql).rows) == ROWS
    (counted,) = Results(runs).query("select count(*), count(*) filter (passed) from checks").rows
    lines = next(runs.glob("*-check-*/checks.jsonl")).read_text().splitlines()
    assert counted == (len(lines), sum(json.loads(line)["passed"] for line in lines))
    assert {row[0] for row in Results(runs).query("select state from results").rows} == {"finished"}


def test_a_run_is_loaded_whole(runs: Path) -> None:
    run = ditr.load_run(RUN, runs=runs)
    assert run.spec.schedule.epochs == 1
    assert run.provenance["dataset"]["name"] == "synthrooms_tiny"
    assert len(MatchTable.load(run.record.matches)) == run.result["n_frames"] == 2
    assert load_instances(run.record.instances).num_rows > 0
    (view,) = load_views(run.record.kept).values()
    assert view.image.shape == (6, 8, 3)
    assert [row["step"] for row in run.record.logged()]


def test_it_is_compared_and_reported(runs: Path) -> None:
    arms = all_arms(runs)
    comparison = compare(arms, metric="ap50", resamples=20)
    assert [one.arm.label for one in comparison.arms] == ["fpn_inject"]
    parts = by_stratum(arms.found, reference=comparison.reference, metric="ap50", resamples=20)
    assert "38d229ad79133c1d653e440b" in report_page(comparison, parts=parts), "the digest of its code"


def test_mlflow_is_told_all_of_them(runs: Path, migrated_store: Path) -> None:
    assert {record.name for record in records_in(runs) if tracked(record) is None} == set()
    shutil.copy(migrated_store, runs / "mlflow.db")
    assert MlflowView(runs).rebuild() == len(ROWS)


def test_a_record_without_a_number_is_of_the_first_layout(runs: Path) -> None:
    """So wrote all versions before there were numbers."""
    file, spec = runs / RUN / "state.json", runs / RUN / "spec.resolved.yaml"
    later = ("schema", "files", "digest")
    write_json(file, {name: value for name, value in json.loads(file.read_text()).items() if name not in later})
    spec.write_text(spec.read_text().removeprefix("schema: 1\n"))
    state = Record(runs / RUN).state()
    assert state is not None
    assert state.schema == 1
    assert read_resolved(spec).name == "fpn_inject"


def made_newer(file: Path, **changes: Any) -> None:
    """As a version to come may write it: its number is higher, and what else it says is not what is known here."""
    content = json.loads(file.read_text()) | {"schema": json.loads(file.read_text())["schema"] + 1} | changes
    write_json(file, content)


def test_a_record_of_a_newer_ditr_says_so_and_how_it_is_read(tmp_path: Path) -> None:
    runs = Path(shutil.copytree(LAYOUTS / str(layouts.RECORD), tmp_path / "runs"))
    made_newer(runs / RUN / "state.json", seed={"of": "another form"}, state="polished", started_at=12)
    (row,) = Results(runs).query("select state from results where folder like 'fpn_inject-s0-%'").rows
    assert row == ("written by a newer ditr: its schema is 3, and this one reads 2 at most",)
    assert len(Results(runs).query("select * from results where state = 'finished'").rows) == 3, "the others are read"
    begin_again = Identity(run_key="4b64e355e1", spec_hash="", name="x", variant="x", seed=0, kind="run")
    before = (runs / RUN / "state.json").read_bytes()
    for read in (lambda: ditr.load_run(RUN, runs=runs), lambda: begin(Record(runs / RUN), begin_again)):
        with pytest.raises(UnreadableRecord, match="written by a newer ditr") as told:
            read()
        assert "Upgrade ditr" in told.value.fix
    assert (runs / RUN / "state.json").read_bytes() == before


def test_a_spec_of_a_newer_ditr_says_that_and_nothing_of_what_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("schema: 2\nfusion: {telepathy: {range: 3}}\n")
    (tmp_path / "child.yaml").write_text("extends: base.yaml\nname: child\nschema: 1\n")
    for file in ("base.yaml", "child.yaml"):
        with pytest.raises(SpecErrors) as told:
            load_spec(tmp_path / file, registry=Registry())
        (problem,) = told.value.problems
        assert (problem.origin.file, problem.origin.line) == (str(tmp_path / "base.yaml"), 1)
        assert "written by a newer ditr: its schema is 2" in problem.what
        assert "upgrade ditr" in problem.what
    with pytest.raises(DitrError, match="written by a newer ditr"):
        read_resolved(tmp_path / "base.yaml")


@pytest.mark.parametrize("number", ["'1'", "0", "1.0", "true", "[1]", "-3", "null"])
def test_a_schema_that_is_no_number_is_a_mistake(number: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"name: a\nschema: {number}\n")
    with pytest.raises(SpecErrors, match="must be a whole number"):
        load_spec(tmp_path / "a.yaml", registry=Registry())


def test_maps_of_a_newer_ditr_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DITR_CACHE", str(tmp_path))
    store = FeatureStore(tmp_path / "features" / "rooms" / "abc", shape=(2, 3, 4))
    store.folder.mkdir(parents=True)
    said = {"source": "vit", "weights_digest": "1", "computed_on": [], "shape": [2, 3, 4]}
    store.write_manifest(said)
    assert store.manifest() == {"schema": 1} | said
    made_newer(store.folder / "manifest.json", shape="packed")
    with pytest.raises(DitrError, match="written by a newer ditr") as told:
        store.manifest()
    assert "Upgrade ditr" in told.value.fix
    assert [found.name for found in stores()] == ["rooms/abc"], "they are listed, and can be deleted"


def test_a_view_of_another_layout_is_told_anew(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = Results(runs)
    view.catch_up()
    before = view.query("select stamp from stamps order by folder").rows
    monkeypatch.setattr(layouts, "VIEWS", layouts.VIEWS + 1)
    view.catch_up()
    after = view.query("select stamp from stamps order by folder").rows
    assert [stamp.partition(" ")[2] for (stamp,) in before] == [stamp.partition(" ")[2] for (stamp,) in after]
    assert {stamp.partition(" ")[0] for (stamp,) in after} == {f"v{layouts.VIEWS}"}
