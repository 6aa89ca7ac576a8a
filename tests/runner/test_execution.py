"""Where and how a run is computed: its device and its engine, the same for every command, or one refusal."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ditr import paths
from ditr.cli.main import app
from ditr.errors import Code, DitrError
from ditr.runner.execution import pick_device, settle, settle_to_look
from ditr.runner.job_text import job_from, job_text
from ditr.runner.plan import plan
from ditr.runner.slots import Slot, require_fit
from ditr.spec.load import LoadedSpec, load_spec
from ditr.spec.models import Spec
from ditr.spec.registry import Registry
from tests.reference.machines import Machine, machine  # noqa: F401

REGISTRY = Registry()
BASELINE = paths.project_dir() / "specs/baseline.yaml"


def load(**execution: str) -> LoadedSpec:
    sets = [f"execution.{name}={value}" for name, value in execution.items()]
    return load_spec(BASELINE, registry=REGISTRY, overrides=sets)


def spec_of(**execution: str) -> Spec:
    return load(**execution).spec


@pytest.mark.parametrize(
    ("gpu", "of"),
    [(True, {"auto": "cuda", "cuda": "cuda", "cpu": "cpu"}), (False, {"auto": "cpu", "cpu": "cpu"})],
)
def test_the_gpu_is_used_where_there_is_one(machine: Machine, gpu: bool, of: dict[str, str]) -> None:  # noqa: F811
    machine(gpu=gpu)
    for device, picked in of.items():
        spec = settle(spec_of(device=device))
        assert pick_device(spec).type == picked
        assert spec.execution.engine == {"cuda": "triton", "cpu": "minkowski"}[picked]
    for refused in {"auto", "cuda", "cpu"} - of.keys():
        with pytest.raises(DitrError, match="torch sees no CUDA device") as raised:
            settle(spec_of(device=refused))
        assert raised.value.code is Code.ENVIRONMENT
        assert "execution.device" in raised.value.where + raised.value.fix


def test_no_run_begins_on_the_cpu_beside_a_gpu_that_no_engine_can_use(machine: Machine) -> None:  # noqa: F811
    """It would be many times slower, and a line of the log is not looked at."""
    machine(gpu=True, compilers=())
    ran = CliRunner().invoke(app, ["run", str(BASELINE)])
    assert isinstance(ran.exception, DitrError)
    assert ran.exception.what.startswith("torch sees a GPU that no engine can use: there is no C compiler")
    assert "execution.device=cpu" in ran.exception.fix
    assert not list(paths.runs_dir().glob("*"))


def test_a_spec_that_leaves_the_engine_open_is_another_run_with_another_engine(
    machine: Machine,  # noqa: F811
    tmp_path: Path,
) -> None:
    def key(**execution: str) -> str:
        (run,) = plan([load(**execution)], registry=REGISTRY, runs=tmp_path, force=False)[:1]
        assert run.spec.execution.engine != "auto"
        return run.key

    machine(gpu=False)
    on_cpu = key()
    assert key(engine="minkowski") == on_cpu
    machine(gpu=True, minkowski_cuda=True)
    on_gpu = key()
    assert on_gpu != on_cpu
    assert key(engine="triton") == on_gpu
    assert key(engine="minkowski") == key(device="cpu") == on_cpu
    assert len({on_gpu, on_cpu, key(precision="bfloat16"), key(precision="float16")}) == 4


def test_a_job_has_the_engine_of_its_place(machine: Machine, tmp_path: Path) -> None:  # noqa: F811
    machine(gpu=True)
    for slot, engine in ((Slot("0"), "triton"), (Slot(None), "minkowski")):
        planned = plan([load()], registry=REGISTRY, runs=tmp_path, force=False, device=slot.device)
        require_fit(planned, slots=[slot])
        assert job_from(job_text(planned[0])).spec.execution.engine == engine
    half = plan([load(precision="bfloat16")], registry=REGISTRY, runs=tmp_path, force=False, device="cpu")
    with pytest.raises(DitrError, match="bfloat16 needs the engine triton, which cannot run here"):
        require_fit(half, slots=[Slot(None)])


REFUSALS = {
    "{engine: triton}": (
        "execution.engine: the engine triton cannot run here: its kernels run on GPUs alone and the device is the"
        " CPU\n  fix: Run it on a GPU; or set execution.engine to auto."
    ),
    "{precision: float16}": (
        "execution.precision: float16 needs the engine triton, which cannot run here: its kernels run on GPUs alone"
        " and the device is the CPU\n  fix: Run it on a GPU; or set execution.precision to float32."
    ),
    "{device: cuda}": (
        "execution.device: torch sees no CUDA device\n"
        "  fix: Set execution.device to auto or cpu; `ditr doctor` says what is there."
    ),
}


COMMANDS = (["run"], ["check"], ["eval", "--checkpoint", "none"], ["plan", "--probe"])


@pytest.mark.parametrize(
    ("command", "execution"),
    [
        (command, execution)
        for command in COMMANDS
        for execution in REFUSALS
        if command != ["check"] or "precision" not in execution  # a check is made in float32
    ],
)
def test_every_command_refuses_what_this_machine_has_not_where_it_is_written(
    machine: Machine,  # noqa: F811
    tmp_path: Path,
    command: list[str],
    execution: str,
) -> None:
    machine(gpu=False)
    file = tmp_path / "arm.yaml"
    column = len("execution: ") + execution.index(": ") + len(": ") + 1
    file.write_text(f"name: arm\ndataset: {{name: synthrooms_tiny}}\nexecution: {execution}\n")
    said = f"error[environment]: {file}:3:{column}: {REFUSALS[execution]}"
    name, *options = command
    ran = CliRunner().invoke(app, [name, str(file), *options])
    assert (said in ran.output) or (said == str(ran.exception)), (ran.output, str(ran.exception))
    assert ran.exit_code != 0


def test_a_plan_without_a_probe_says_what_a_run_here_would_meet(machine: Machine, tmp_path: Path) -> None:  # noqa: F811
    """It may be made on another machine than the run."""
    machine(gpu=False)
    ran = CliRunner().invoke(app, ["plan", str(BASELINE), "--set", "execution.precision=bfloat16"])
    assert ran.exit_code == 0, ran.output
    note = "`ditr run` on this machine would be refused: --set execution.precision=bfloat16: execution.precision: bf"
    assert note in ran.output


def test_a_look_takes_an_engine_of_this_machine(machine: Machine) -> None:  # noqa: F811
    on_gpu = spec_of(engine="triton", precision="bfloat16")
    machine(gpu=False)
    looked = settle_to_look(on_gpu).execution
    assert (looked.engine, looked.precision) == ("minkowski", "float32")
    machine(gpu=True)
    assert settle_to_look(on_gpu) == on_gpu
    looked = settle_to_look(spec_of(engine="minkowski")).execution
    assert (looked.engine, looked.precision) == ("triton", "float32")
