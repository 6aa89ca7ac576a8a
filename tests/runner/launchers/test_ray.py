"""Runs as tasks of a real cluster of Ray's: two nodes of this machine, of which one is killed. The work is a small
script."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ditr.errors import DitrError
from ditr.profiles import RayProfile
from ditr.record.views.teller import Teller
from ditr.runner.launchers import process
from ditr.runner.launchers.ray import RayLauncher
from ditr.runner.launchers.standing import held_tickets
from ditr.runner.queue import Look, Standing, run_at_once
from ditr.runner.run import RunOutcome
from ditr.runner.stop import StopSignal
from tests.runner.test_queue import WORK, planned, silent

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import ray
    from ray.cluster_utils import Cluster

    script = tmp_path / "job.py"
    script.write_text(WORK)
    monkeypatch.setattr(process, "PYTHON", (sys.executable, str(script)))
    monkeypatch.setattr(ray._private.ray_constants, "ENABLE_RAY_CLUSTER", False)  # this machine is 127.0.0.1 alone
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "node_ip_address": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.second = cluster.add_node(**node)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def run(runs: Path, *seeds: int, address: str, look: Look = silent) -> tuple[RunOutcome, ...]:
    with StopSignal() as stop:
        launcher = RayLauncher(RayProfile(gpus=0, cpus=1, address=address), runs=runs)
        return run_at_once(planned(runs, *seeds), launcher=launcher, teller=Teller((), say=print), stop=stop, look=look)


def test_runs_of_a_killed_node_go_on_elsewhere_and_one_that_fails_stops_nothing(tmp_path: Path, cluster: Any) -> None:
    seen: list[tuple[int, int]] = []
    killed = False

    def look(standing: Standing) -> None:
        nonlocal killed
        seen.append((len(standing.under_way), len(held_tickets(tmp_path)) + len(standing.ended)))
        if not killed and [run.seed for run in standing.under_way] == [80, 81]:
            raylet = cluster.second.all_processes["raylet"][0].process.pid
            workers = psutil.Process(raylet).children()
            cluster.remove_node(cluster.second, allow_graceful=False)
            for worker in workers:
                worker.kill()
            killed = True

    found = run(tmp_path, 80, 81, 1, 3, address=cluster.address, look=look)
    assert killed
    assert [outcome.error is None for outcome in found] == [True, True, False, True]
    assert "seed 1 has no luck" in str(found[2].error)
    assert [outcome.state.state for outcome in found if outcome.state] == ["finished", "finished", "failed", "finished"]
    texts = [next(tmp_path.glob(f"baseline-s{seed}-*/sessions.txt")).read_text() for seed in (80, 81)]
    assert sorted(texts) == ["0 finished\n", "0 stopped\n1 finished\n"], "the job heard that its node is gone"
    assert max(under_way for under_way, _ in seen) == 2
    assert seen[0][1] == 4, "every command sees those that wait"


def test_what_no_node_has_is_refused_and_not_waited_for(tmp_path: Path, cluster: Any) -> None:
    launcher = RayLauncher(RayProfile(gpus=1, cpus=1, address=cluster.address), runs=tmp_path)
    with pytest.raises(DitrError, match="no node of Ray's has 1 CPUs and 1 GPUs for a run: they have 1 CPUs"):
        launcher.submit(planned(tmp_path, 0))
