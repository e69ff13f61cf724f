"""The hosts' disks: their contents before the hosts start, and their free space."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from engine.errors import ConfigError, RunFailedError
from tianji_cli.lab import texts
from tianji_cli.lab.network import NetworkCommand
from tianji_cli.lab.plan import HostPlan, LabPaths, LabPlan
from tianji_cli.lab.system import attempt, perform

ROOMY = "50%"
"""Share of this machine's memory that a disk may hold while it is not filled up."""
_FILL_ATTEMPTS = 5


def make_key(path: Path, comment: str) -> str:
    """Creates an ed25519 key pair; returns the public key."""
    perform(
        NetworkCommand(
            ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path))
        )
    )
    return path.with_name(f"{path.name}.pub").read_text(encoding="ascii")


def prepare_disk(plan: LabPlan, host: HostPlan, paths: LabPaths) -> str:
    """Creates a host's disk, a file system of its own, and fills its upper layer.

    Returns:
        Its line for `known_hosts`.
    """
    disk = Path(host.disk)
    disk.mkdir()
    perform(NetworkCommand(("mount", "-t", "tmpfs", "-o", f"size={ROOMY}", plan.lab_id, host.disk)))
    for part in ("upper", "work", "root"):
        (disk / part).mkdir(parents=True)
    upper = disk / "upper"
    upper.chmod(0o755)
    etc = upper / texts.ETC
    copy_parents(upper, "/etc/hosts")
    etc.mkdir(mode=0o755)
    (upper / "etc/hostname").write_text(f"{host.name}\n", encoding="ascii")
    (upper / "etc/hosts").write_text(texts.hosts_table(plan), encoding="ascii")
    (etc / "sshd_config").write_text(texts.sshd_config(host), encoding="ascii")
    shutil.copyfile(paths.public_key, etc / "authorized_keys")
    _unlock_root(upper)
    for path in plan.request.fresh:
        make_opaque(upper, path)
    for path in plan.request.hide:
        hide(upper, path)
    public_key = make_key(etc / "ssh_host_ed25519_key", host.name)
    return texts.known_hosts_line(host, public_key)


def fill(host: HostPlan, leave_bytes: int) -> None:
    """Limits the free space of a host's disk by shrinking the disk to its content plus that space.

    Raises:
        RunFailedError: It is written to faster than it can be shrunk.
    """
    for _ in range(_FILL_ATTEMPTS):
        state = os.statvfs(host.disk)
        used_bytes = (state.f_blocks - state.f_bfree) * state.f_frsize
        done = attempt(_resize(host, str(used_bytes + leave_bytes)))
        if done.returncode == 0:
            return
    raise RunFailedError(f"the disk cannot be filled: {done.stderr.strip()}", where=host.name)


def free(host: HostPlan) -> None:
    """Undoes `fill`."""
    perform(_resize(host, ROOMY))


def is_full(host: HostPlan) -> bool:
    """Whether nothing more can be written to a host's disk."""
    return os.statvfs(host.disk).f_bavail == 0


def _resize(host: HostPlan, size: str) -> NetworkCommand:
    return NetworkCommand(("mount", "-o", f"remount,size={size}", host.disk))


def _unlock_root(upper: Path) -> None:
    try:
        shadow = texts.unlock_root(Path("/etc/shadow").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    if shadow is not None:
        copy = upper / "etc/shadow"
        copy.write_text(shadow, encoding="utf-8")
        copy.chmod(0o600)


def hide(upper: Path, path: str) -> None:
    """Hides a path of this machine from a host, by an overlay whiteout in its upper layer.

    Raises:
        ConfigError: The lab itself uses that path.
    """
    if not os.path.lexists(path):
        return
    if os.path.lexists(upper / path.lstrip("/")):
        raise ConfigError(f"a host cannot do without {path}", where="--hide")
    copy_parents(upper, path)
    os.mknod(upper / path.lstrip("/"), stat.S_IFCHR, os.makedev(0, 0))


def make_opaque(upper: Path, path: str) -> None:
    """Makes a directory of this machine empty in a host, with the same mode and owner."""
    if os.path.isdir(path):
        copy_parents(upper, f"{path}/x")
        os.setxattr(upper / path.lstrip("/"), "trusted.overlay.opaque", b"y")


def copy_parents(upper: Path, path: str) -> None:
    """Makes the directories above `path`, with this machine's modes and owners: they win."""
    for parent in reversed(Path(path).parents[:-1]):
        copy = upper / str(parent).lstrip("/")
        if not copy.exists():
            copy.mkdir()
            shutil.copystat(parent, copy)
            os.chown(copy, parent.stat().st_uid, parent.stat().st_gid)
