"""Brings the files of a submitted run here, where nodes and this machine share no disk.

While its job runs, by a step of it on the node of its script; afterwards by a job of that one node.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from engine.errors import HostUnreachableError, PreflightError
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.base import Node
from tianji_cli.provisioning.reaching import Connect, connect
from tianji_cli.runs.continuing import names_of
from tianji_cli.runs.mirror import fetch
from tianji_cli.runs.submitted import SubmittedRun
from tianji_cli.slurm.batch_script import sbatch_lines
from tianji_cli.slurm.job_state import JobState
from tianji_cli.slurm.programs import JobQuery, submit
from tianji_cli.storage.deployment import (
    DEPLOYMENT_NAME,
    deployment_of_bytes,
    shares_of,
    take_deployment,
)
from tianji_cli.storage.json_files import MAX_DOCUMENT_BYTES
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.storage.safe_files import append_descriptor, write_file

START_S = 60.0
"""Time-out for a job of one node to start."""
LOOK_S = 1.0
MAX_LOG_BYTES = 1 << 26
_LEASE_MIN = 10
"""Time limit of such a job, which ends it if this command is killed."""


def may_be_elsewhere(run: SubmittedRun, state: JobState) -> bool:
    """Whether the job has begun, but its log is not here. That is the first thing that it opens,
    though for a moment it is not seen here even on a shared disk."""
    has_begun = state.phase == "running" or (state.is_over and bool(state.batch_host))
    return run.job.is_elsewhere or (has_begun and not run.log.exists())


def node_host(name: str, job: str) -> Host:
    """A node as a host that a step of a job reaches."""
    return Host(name=name, connection="slurm", job=job, address="", ports=None)


@contextlib.contextmanager
def node_of(run: SubmittedRun, state: JobState, reach: Connect = connect) -> Iterator[Node]:
    """The node where the job's script runs or ran.

    Raises:
        TianJiError: It cannot be reached, or the run came from elsewhere and was not agreed to.
    """
    run.need_consent()
    if not state.batch_host:
        raise HostUnreachableError(
            "Slurm no longer says on which node it ran", where=run.words, fix="look for its files"
        )
    with contextlib.ExitStack() as stack:
        job = run.job.job
        if state.is_over:
            job = stack.enter_context(borrowed(state.batch_host, state))
        node = reach(node_host(state.batch_host, job), threading.Event())
        stack.callback(node.close)
        yield node


@contextlib.contextmanager
def borrowed(node: str, like: JobState) -> Iterator[str]:
    """A short job on a node, for steps that bring files and remove them.

    Args:
        node: Its name.
        like: The job whose partition and account it uses.

    Yields:
        The job's number.

    Raises:
        HostUnreachableError: It does not start soon: the node is down, or others use it.
    """
    asked = {"nodelist": node, "partition": like.partition, "account": like.account}
    options = [f"{name}={value}" for name, value in asked.items() if value]
    fixed = ["nodes=1", "job-name=tianji-files", "output=/dev/null", f"time={_LEASE_MIN}"]
    lines = sbatch_lines([*options, *fixed])
    script = "\n".join(["#!/bin/sh", *lines, f"exec sleep {_LEASE_MIN * 60}", ""])
    query = JobQuery(*submit(script))
    try:
        deadline_s = time.monotonic() + START_S
        while (state := query.state()).state != "RUNNING":
            if state.is_over or time.monotonic() > deadline_s:
                raise HostUnreachableError(
                    f"no job starts there: it {state.words()}",
                    where=node,
                    fix=f"once the node is free, repeat this command (see squeue -w {node})",
                )
            time.sleep(LOOK_S)
        yield query.job
    finally:
        with contextlib.suppress(PreflightError):  # it ends by its time limit
            query.cancel()


def bring(run: SubmittedRun, node: Node, *, has_ended: bool) -> None:
    """Copies what is new of all runs of the job, and what `up` has said; nothing if the node writes
    to the same disk.

    Args:
        run: The run.
        node: Where its script runs or ran.
        has_ended: Whether to copy files, too, that are replaced as a whole.

    Raises:
        TianJiError: The node cannot be reached, or a file there is invalid.
        OSError: They cannot be kept here.
    """
    there = str(run.results.absolute())
    if _is_shared(run, node, there):
        return
    run.note_elsewhere()
    _append(node, f"{there}/{run.job.run_id}/{run.log.name}", run.log)
    for name in names_of(run.job.run_id):
        remote = f"{there}/{name}"
        if not node.exists(f"{remote}/{DEPLOYMENT_NAME}"):
            return
        _bring_run(node, remote, RunPaths(run.results / name), has_ended=has_ended)


def _is_shared(run: SubmittedRun, node: Node, there: str) -> bool:
    """Whether the node sees a file that is made here."""
    if run.job.is_elsewhere:
        return False
    name = f".{secrets.token_hex(8)}.tmp"
    (run.first.root / name).touch()
    try:
        return node.exists(f"{there}/{run.job.run_id}/{name}")
    finally:
        (run.first.root / name).unlink()


def _bring_run(node: Node, remote: str, paths: RunPaths, *, has_ended: bool) -> None:
    where = f"{node.name}: {remote}/{DEPLOYMENT_NAME}"
    data = node.read(f"{remote}/{DEPLOYMENT_NAME}", 0, MAX_DOCUMENT_BYTES)
    deployment = deployment_of_bytes(data, where)
    paths.root.mkdir(exist_ok=True)
    for directory in (paths.trace, paths.logs, paths.checkpoints, paths.plots):
        directory.mkdir(exist_ok=True)
    if not paths.manifest.exists():
        write_file(paths.manifest, node.read(f"{remote}/manifest.json", 0, MAX_DOCUMENT_BYTES))
    for share in shares_of(deployment.parts).values():
        fetch(node, share, remote, paths.root, everything=has_ended)
    take_deployment(paths.root, deployment)


def _append(node: Node, source: str, path: Path) -> None:
    """Copies what was appended to a log that only grows."""
    known = path.stat().st_size if path.exists() else 0
    data = node.read(source, known, MAX_LOG_BYTES)
    if data:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(append_descriptor(path), "ab") as file:
            file.write(data)
