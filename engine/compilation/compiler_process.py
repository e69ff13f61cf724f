"""Starts a compiler: a process beside the training that uses what it makes."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path

import msgspec

from engine.blueprint import Blueprint
from engine.compilation.library import Kind
from engine.devices.visible import find_devices
from engine.host.cores import release
from engine.host.end_signals import END_SIGNAL
from engine.host.fork import Child, Fork
from engine.host.tether import tethered
from engine.search_path import searched, with_own_path

LOG = "log"
"""The file in a workspace to which a compiler writes; its last line says why it has failed."""


def start_compiler(
    blueprint: Blueprint, kind: Kind, library: Path, workspace: Path, lock: int
) -> Child:
    """Starts a compiler, which ends with this process.

    It is a fork, since reading libraries again would take as long as the rest of its work. Only
    where there are GPUs it is a new interpreter: PyTorch computes no gradients in a fork of a
    process that has threads for them.

    Args:
        blueprint: The experiment.
        kind: Which function of it.
        library: What is to be made.
        workspace: A directory for what is needed on the way.
        lock: Descriptor of its lock, which the compiler holds as well.

    Raises:
        OSError: It cannot be started.
    """
    start = _start_interpreter if find_devices() else _fork
    with (workspace / LOG).open("wb") as log:
        started = start(blueprint, kind, library, workspace, lock, log.fileno())
    release(started.pid)  # not onto the core that this process is pinned to
    return started


def _fork(
    blueprint: Blueprint, kind: Kind, library: Path, workspace: Path, lock: int, log: int
) -> Child:
    return Fork(partial(_compile, blueprint, kind, library, workspace), log, (lock,))


def _compile(blueprint: Blueprint, kind: Kind, library: Path, workspace: Path) -> None:
    """In the fork. What only a compiler needs is not read before."""
    from engine.compilation.compiler import compile_to, settle

    settle(kind, workspace)
    compile_to(blueprint, kind, library, workspace)


def _start_interpreter(
    blueprint: Blueprint, kind: Kind, library: Path, workspace: Path, lock: int, log: int
) -> Child:
    from engine.compilation.compiler import CompileOrder

    order = workspace / "order.json"
    order.write_bytes(
        msgspec.json.encode(
            CompileOrder(
                experiment=blueprint.experiment,
                cut=blueprint.cut,
                group=blueprint.group,
                has_action_mask=blueprint.spaces.has_action_mask,
            )
        )
    )
    words = (kind, str(library), str(workspace), *searched())
    with order.open("rb") as given:
        return subprocess.Popen(
            tethered("engine.compilation.compiler", *words, number=END_SIGNAL),
            stdin=given,
            stdout=log,
            stderr=log,
            env=with_own_path(os.environ),
            pass_fds=(lock,),
        )
