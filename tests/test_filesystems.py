"""Which disk a path is on, from lines of the kernel's as they were seen on other machines."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ditr import filesystems
from ditr.errors import DitrError
from ditr.filesystems import mount_of, require_locks, require_own_disk
from ditr.profiles import SlurmProfile
from ditr.record.views.mlflow_store import store_of
from ditr.runner.launchers.choice import launcher_for

MOUNTS = r"""proc /proc proc rw,nosuid 0 0
/dev/nvme0n1p2 / ext4 rw,relatime 0 0
filer:/home /nowhere/home nfs4 rw,vers=4.2,hard,proto=tcp,local_lock=none,addr=10.0.0.1 0 0
filer:/old /nowhere/home/old nfs rw,vers=3,nolock,local_lock=all,addr=10.0.0.1 0 0
10.0.0.2@o2ib:/scratch /nowhere/scratch lustre rw,flock,lazystatfs 0 0
10.0.0.2@o2ib:/work /nowhere/work\040space lustre rw,localflock 0 0
/dev/sdb1 /nowhere/scratch/local xfs rw 0 0
"""


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mounts"
    path.write_text(MOUNTS)
    monkeypatch.setattr(filesystems, "MOUNTS", path)


@pytest.mark.parametrize(
    ("path", "kind", "shared", "lack"),
    [
        ("/nowhere/homes/me", "ext4", False, None),
        ("/nowhere/home/me/runs", "nfs4", True, None),
        ("/nowhere/home/old/runs", "nfs", True, "local_lock=all"),
        ("/nowhere/scratch/me", "lustre", True, None),
        ("/nowhere/scratch/local/me", "xfs", False, None),
        ("/nowhere/work space/me", "lustre", True, "localflock"),
    ],
)
@pytest.mark.usefixtures("mounts")
def test_a_path_is_on_the_innermost_mount_above_it(path: str, kind: str, shared: bool, lack: str | None) -> None:
    mount = mount_of(Path(path))
    assert mount is not None
    assert (mount.kind, mount.is_shared, mount.lock_lack) == (kind, shared, lack)


@pytest.mark.usefixtures("mounts")
def test_what_is_not_safe_is_refused_with_the_reason() -> None:
    with pytest.raises(DitrError, match="/nowhere/home/old is nfs, mounted with local_lock=all"):
        require_locks(Path("/nowhere/home/old/runs"), fix="move")
    require_locks(Path("/nowhere/home/runs"), fix="move")
    with pytest.raises(DitrError, match="SQLite is not safe there: /nowhere/home is nfs4"):
        require_own_disk(Path("/nowhere/home/x"), what="SQLite is not safe there", fix="move")
    require_own_disk(Path("/nowhere/scratch/local"), what="SQLite", fix="move")


@pytest.mark.usefixtures("mounts")
def test_no_cluster_is_given_runs_without_locks_and_no_sqlite_lies_on_nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = SlurmProfile(setup=("export DITR_CACHE=/local/ditr",))
    with pytest.raises(DitrError, match="locks there do not hold between machines"):
        launcher_for(profile, runs=Path("/nowhere/home/old/runs"))
    launcher_for(profile, runs=Path("/nowhere/home/runs"))
    monkeypatch.setenv("DITR_CACHE", "/nowhere/home/old/cache")
    launcher_for(profile, runs=Path("/nowhere/home/runs"))
    with pytest.raises(DitrError, match="setup = "):
        launcher_for(SlurmProfile(), runs=Path("/nowhere/home/runs"))
    with pytest.raises(DitrError, match="SQLite damages itself on a disk that machines share: /nowhere/home is nfs4"):
        store_of(Path("/nowhere/home/runs")).require_usable()


def test_the_kernel_of_this_machine_is_understood(tmp_path: Path) -> None:
    mount = mount_of(tmp_path)
    assert mount is not None
    told = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True).stdout
    named = {"overlayfs": "overlay", "ext2/ext3": "ext4"}.get(told.strip(), told.strip())
    assert mount.kind == named
