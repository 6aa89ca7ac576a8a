"""What kind of file system a path is on, as the kernel says, and what cannot be relied on there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ditr.errors import Code, DitrError

MOUNTS = Path("/proc/self/mounts")
_SHARED = {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "afs", "fuse.sshfs", "fuse.glusterfs"}
"""Kinds that several machines mount."""
_ALONE = {
    "nfs": {"nolock", "local_lock=all", "local_lock=flock"},
    "nfs4": {"nolock", "local_lock=all", "local_lock=flock"},
    "lustre": {"localflock", "noflock"},
    "cifs": {"nobrl"},
    "smb3": {"nobrl"},
}
"""Options of a mount by which a lock holds on one machine alone (docs/reference/clusters.md, Locks on shared disks)."""


@dataclass(frozen=True)
class Mount:
    """A line of the kernel's."""

    point: Path
    kind: str
    options: frozenset[str]

    @property
    def is_shared(self) -> bool:
        """Whether other machines may write there too."""
        return self.kind in _SHARED

    @property
    def lock_lack(self) -> str | None:
        """The option by which other machines do not see a lock; None where they do."""
        return next(iter(sorted(self.options & _ALONE.get(self.kind, set()))), None)


def mount_of(path: Path) -> Mount | None:
    """What ``path``, which need not be there yet, is or will be on; None where the kernel does not say."""
    if not MOUNTS.is_file():
        return None
    place, found = path.resolve(), None
    for line in MOUNTS.read_bytes().splitlines():
        _, point, kind, options = line.split(b" ")[:4]
        named = Path(os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), point)))
        if place.is_relative_to(named) and (found is None or named.is_relative_to(found.point)):
            found = Mount(named, kind.decode(), frozenset(options.decode().split(",")))
    return found


def require_locks(path: Path, *, fix: str) -> None:
    """Raises
    ------
    DitrError: a lock on a file there does not hold between machines.
    """
    mount = mount_of(path)
    if mount is not None and (option := mount.lock_lack):
        what = f"locks there do not hold between machines: {mount.point} is {mount.kind}, mounted with {option}"
        raise DitrError(what, code=Code.ENVIRONMENT, where=str(path), fix=fix)


def require_own_disk(path: Path, *, what: str, fix: str) -> None:
    """Raises
    ------
    DitrError: other machines may write there too.
    """
    mount = mount_of(path)
    if mount is not None and mount.is_shared:
        raise DitrError(f"{what}: {mount.point} is {mount.kind}", code=Code.ENVIRONMENT, where=str(path), fix=fix)
