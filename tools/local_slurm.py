"""A cluster of Slurm's on this machine, for tests: a controller and two nodes of one CPU, all on 127.0.0.1.

    apt-get install slurm-wlm munge
    python -m tools.local_slurm FOLDER      runs until Ctrl-C; `export SLURM_CONF=FOLDER/slurm.conf` uses it elsewhere

Needs root, as slurmd does, and nothing of the machine's own Slurm: configuration, key, state and logs are in FOLDER.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NODES = ("one", "two")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
_READY_S = 60.0
_CONF = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=6
KillWait=10
SlurmdParameters=config_overrides
{nodes}
PartitionName=here Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""


class LocalSlurm:
    """A cluster that is up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Raises ``RuntimeError`` where the nodes are not up after a minute."""
        for path in (self.folder / "state", *(self.folder / f"spool-{node}" for node in NODES)):
            path.mkdir(parents=True)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self.folder.chmod(0o755)
        port = _free_ports(1 + len(NODES))
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={own} CPUs=1 State=UNKNOWN"
            for node, own in zip(NODES, port[1:], strict=True)
        )
        self.conf.write_text(
            _CONF.format(
                host=socket.gethostname(), port=port[0], folder=self.folder, nodes=nodes, names=",".join(NODES)
            ).lstrip()
        )
        munge = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        self._start("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *munge)
        _wait_until(lambda: (self.folder / "munge.socket").exists(), what="munged is not up")
        self._start("slurmctld", "-D", "-f", str(self.conf))
        for node in NODES:
            self.start_node(node)
        _wait_until(lambda: self.ask("sinfo", "-h", "-o", "%D %T").strip() == f"{len(NODES)} idle", what="no nodes")

    def start_node(self, node: str) -> None:
        """One that was killed comes back."""
        self._start(node, "-D", "-N", node, "-f", str(self.conf), program="slurmd")

    def kill_node(self, node: str) -> None:
        """Its daemon and all that it started, as when the power fails."""
        daemon = self._daemons.pop(node)
        killed = [daemon.pid, *self._steps_of(node)]
        for number in (signal.SIGSTOP, signal.SIGKILL):  # at once: none may tell the controller that another is gone
            for pid in killed:
                _send(pid, number)
        daemon.wait()

    def ask(self, *command: str) -> str:
        """What one of Slurm's commands says; empty where it fails."""
        environment = os.environ | {"SLURM_CONF": str(self.conf)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout

    def stop(self) -> None:
        """Ends the daemons and every job."""
        self.ask("scancel", "--user", "root")
        for node in NODES:
            for pid in self._steps_of(node):
                _send(pid, signal.SIGKILL)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _start(self, name: str, *options: str, program: str | None = None) -> None:
        log = (self.folder / f"{name}.out").open("ab")
        with log:
            self._daemons[name] = subprocess.Popen(
                [shutil.which(program or name) or name, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"SLURM_CONF": str(self.conf)},
            )

    def _steps_of(self, node: str) -> list[int]:
        """Processes whose environment says that Slurm started them on the node, and the daemons of its steps."""
        found, log = [], os.fsencode(self.folder / f"slurmd-{node}.log")
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment = (process / "environ").read_bytes().split(b"\0")
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue
            ours = f"SLURM_CONF={self.conf}".encode() in environment
            works = ours and f"SLURMD_NODENAME={node}".encode() in environment
            watches = command.startswith(b"slurmstepd:") and log in _open_files(process)
            if works or watches:
                found.append(int(process.name))
        return found


@contextmanager
def local_slurm(folder: Path) -> Iterator[LocalSlurm]:
    """A cluster that is up while the block runs."""
    cluster = LocalSlurm(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _open_files(process: Path) -> bytes:
    try:
        return b" ".join(os.fsencode(os.readlink(file)) for file in (process / "fd").iterdir())
    except OSError:
        return b""


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_until(holds: Callable[[], bool], *, what: str) -> None:
    deadline = time.monotonic() + _READY_S
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} after {_READY_S:.0f} s; the logs say why")
        time.sleep(0.2)


def main() -> None:
    """Until Ctrl-C."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        sys.exit(f"there is no {missing[0]}: apt-get install slurm-wlm munge")
    with local_slurm(Path(sys.argv[1]).resolve()) as cluster:
        print(f"up; export SLURM_CONF={cluster.conf}", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
