"""Nodes of a Slurm job: a keeper on each, started by one `srun`; everything else goes through it.

One step per node: accounting sees no more, and files can still be fetched while the job is being
cancelled, when no new step starts. What srun carries is plain text, so no secret goes through it.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterable

from engine.errors import DeadlineError, HostUnreachableError, PreflightError
from engine.host.account import user_label
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.base import AccessFacts
from tianji_cli.connectors.piped.channel import ProcessChannel
from tianji_cli.connectors.piped.link import KeeperLink, KeeperNotStartedError, start_keeper
from tianji_cli.connectors.piped.node import PipedNode
from tianji_cli.connectors.piped.program import KeeperProgram

_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_CLUSTER_NAME")
"""Say where Slurm is; all other variables of a job are options to srun that are not meant here."""
_OPTIONS = (
    "--job-name=tianji",  # as the step is listed
    "--quiet",
    "--overlap",  # beside whatever else the job runs on the node
    "--export=ALL",
    "--nodes=1",
    "--ntasks=1",
    "--input=all",
    "--unbuffered",  # frames do not end with lines
    "--mem=0",  # all that the job has there
    "--mpi=none",
    "--cpu-bind=none",  # the job's cores, not one of them
    "--chdir=/",
)
_OVER = ("expired", "invalid job", "job has already finished", "job is already completed")


def slurm_node(host: Host, cancel: threading.Event | None = None) -> PipedNode:
    """A node of the job `host.job`, with a keeper that runs.

    Args:
        host: From the inventory, completed from the allocation.
        cancel: Not waited for: srun says soon that it cannot start.

    Raises:
        PreflightError: srun is not here, or no Python there.
        HostUnreachableError: No step starts there.
        DeadlineError: It takes longer.
    """
    access = AccessFacts(
        user=user_label(),
        endpoint=f"node {host.name} of Slurm job {host.job}",
        address=host.address,
    )
    node = PipedNode(host.name, lambda: _start(host), access)
    assert node.link  # whatever is wrong with the node is known at once
    return node


def _start(host: Host) -> KeeperLink:
    """The keeper, in the run's job or, once that is over, in the job of this command: a later one
    can have the node, and clean up there."""
    here = os.environ.get("SLURM_JOB_ID", "")
    try:
        return _start_in(host.job, host)
    except JobOverError:
        if not here.isdigit() or here == host.job:
            raise
        return _start_in(here, host)


def _start_in(job: str, host: Host) -> KeeperLink:
    channels: list[ProcessChannel] = []

    def open_channel(program: KeeperProgram) -> ProcessChannel:
        script = program.script([host.python or sys.executable])
        channels.append(ProcessChannel(srun_words(job, host.name, script, os.environ)))
        return channels[0]

    if shutil.which("srun") is None:
        raise PreflightError(
            "srun is not there", where="this machine", fix="install Slurm's commands here"
        )
    try:
        return start_keeper(host.name, open_channel)
    except KeeperNotStartedError as error:
        raise step_error(job, host.name, error.said) from None
    except DeadlineError as error:
        channels[0].process.terminate()  # srun ends the step, or its attempts to start one
        said = f"{error.what}\n{channels[0].last_words()}"
        raise step_error(job, host.name, said) from None


def srun_words(job: str, node: str, script: str, variables: Iterable[str]) -> list[str]:
    """The command that runs a script for `sh` on a node, whatever else its job does there.

    Args:
        job, node: Where.
        script: What runs there.
        variables: Names of those that are set here.
    """
    unset = [
        word
        for name in sorted(variables)
        if name.startswith(("SLURM_", "SRUN_", "SLURMD_")) and name not in _KEPT
        for word in ("-u", name)
    ]
    where = (f"--jobid={job}", f"--nodelist={node}")
    return ["env", *unset, "srun", *where, *_OPTIONS, "sh", "-c", script]


class JobOverError(HostUnreachableError):
    """The job has ended or is being ended: no step starts in it any more."""


def step_error(job: str, node: str, said: str) -> HostUnreachableError:
    """The error for a step that did not become a keeper.

    Args:
        job, node: Where it was to be.
        said: What srun said, or the shell there.
    """
    lines = [line for line in said.splitlines() if line.strip()]
    words = "".join(f"\n    {line}" for line in lines[-5:])
    if any(word in said.lower() for word in _OVER):
        return JobOverError(
            f"Slurm job {job} is over, or is being ended{words}",
            where=node,
            fix="its processes end with it; what is left on the node's disk can be removed inside"
            f" another job: salloc --nodelist {node}",
        )
    return HostUnreachableError(
        f"no step of Slurm job {job} starts there{words}",
        where=node,
        fix=f"see `scontrol show node {node}` and `squeue --job {job}`",
    )
