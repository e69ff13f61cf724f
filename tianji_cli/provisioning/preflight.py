"""Checks whether a host is ready for a run, with one probe per known cause of failure.

See `findings.py` for what becomes of a probe that cannot run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import msgspec

from engine import REQUIREMENTS
from engine.errors import TianJiError
from engine.wording import plural
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.base import Node
from tianji_cli.provisioning.bundle import pinned_constraints
from tianji_cli.provisioning.environment import MIN_FREE_BYTES, find_interpreter
from tianji_cli.provisioning.findings import Finding, failed, passed
from tianji_cli.provisioning.probe import ProbeFacts, probe_command
from tianji_cli.storage.clock_sync import NUM_PINGS, ClockAnswer, ClockOffset, estimate

MIN_MEMORY_BYTES = 512 * 2**20
MAX_SKEW_S = 1.0
INDEX_S = 40.0


def host_findings(node: Node, host: Host) -> tuple[list[Finding], str]:
    """All probes of one host that need no other host.

    Returns:
        The findings, and the path of its interpreter; empty if it has no usable one.
    """
    try:
        interpreter = find_interpreter(node, host, pinned_constraints())
    except TianJiError as error:
        return [failed("python", error)], ""
    facts = interpreter.facts
    findings = [
        passed("python", f"{facts.python} at {facts.executable}"),
        judge_versions(facts, _index_problem(node, interpreter.path, facts), interpreter.damage),
        passed("cores", _words_of_cores(facts.num_cores, host)),
        judge_memory(facts),
        judge_disk(facts, host.workdir),
        judge_gpus(facts, host),
        _attempt("clock", lambda: judge_clock(measure_clock(node, interpreter.path))),
        judge_leftovers(facts),
    ]
    return findings, interpreter.path


def _words_of_cores(num_cores: int, host: Host) -> str:
    if host.cores is None or host.cores >= num_cores:
        return str(num_cores)
    return f"{host.cores} of {num_cores}"


def _attempt(name: str, probe: Callable[[], Finding]) -> Finding:
    try:
        return probe()
    except TianJiError as error:
        return failed(name, error)


def _index_problem(node: Node, python: str, facts: ProbeFacts) -> str:
    """Why missing packages cannot be installed on a host; empty if they can, or none is missing."""
    if not facts.missing or not facts.has_venv:
        return ""
    wanted = [f"{name}=={_pinned()[name]}" for name in facts.missing]
    done = node.run(probe_command(python, "index", *wanted), INDEX_S)
    try:
        answers = msgspec.json.decode(done.stdout, type=dict[str, str])
    except msgspec.DecodeError:
        return ""  # unknown is no reason to refuse a host
    return next((problem for problem in answers.values() if problem), "")


def _pinned() -> dict[str, str]:
    """Versions installed here, by package."""
    return dict(line.split("==") for line in pinned_constraints().split())


def judge_versions(facts: ProbeFacts, index_problem: str = "", damage: str = "") -> Finding:
    """Compares packages with those installed here.

    Args:
        index_problem: Why missing packages cannot be installed there.
        damage: Why the environment of an earlier `up` is damaged.
    """
    pinned = _pinned()
    if facts.missing:
        missing = ", ".join(facts.missing)
        if index_problem:
            return Finding(
                probe="versions",
                verdict="failed",
                detail=f"lacks {missing}, and pip cannot get them there: {index_problem}",
                fix="let pip there reach a package index (pip config), or give a `python:` that has"
                " them",
            )
        if facts.has_venv:
            made = f"lacks {missing}; `up` makes an environment with pinned versions there"
            anew = f"its environment is damaged ({damage}); `up` makes it anew"
            return Finding(probe="versions", verdict="warning", detail=anew if damage else made)
        return Finding(
            probe="versions",
            verdict="failed",
            detail=f"lacks {missing}, and cannot make virtual environments",
            fix=f"apt install python{facts.minor}-venv there, or give another `python:`",
        )
    others = [
        f"{name} {version} (here {pinned[name]})"
        for name in REQUIREMENTS
        if (version := (facts.packages.get(name) or "").partition("+")[0]) != pinned[name]
    ]
    if others:
        return Finding(
            probe="versions",
            verdict="warning",
            detail=", ".join(others),
            fix="pip install the versions used here, so that all hosts compute the same",
        )
    return passed("versions", f"{len(REQUIREMENTS)} packages, same versions as here")


def judge_memory(facts: ProbeFacts) -> Finding:
    """Free memory."""
    detail = (
        f"{facts.memory_available_bytes / 2**30:.1f} of {facts.memory_bytes / 2**30:.1f} GiB free"
    )
    if 0 < facts.memory_available_bytes < MIN_MEMORY_BYTES:
        return Finding(
            probe="memory",
            verdict="warning",
            detail=detail,
            fix="end other programs, or give this host fewer roles",
        )
    return passed("memory", detail)


def judge_disk(facts: ProbeFacts, workdir: str) -> Finding:
    """Free disk where TianJi keeps its files."""
    detail = f"{facts.disk_free_bytes / 2**30:.1f} GiB free at {workdir}"
    if not facts.is_writable:
        return Finding(
            probe="disk",
            verdict="failed",
            detail=f"{workdir} cannot be written",
            fix="give another `workdir:`",
        )
    if facts.disk_free_bytes < MIN_FREE_BYTES:
        return Finding(
            probe="disk", verdict="failed", detail=detail, fix="free space, or another `workdir:`"
        )
    return passed("disk", detail)


def judge_gpus(facts: ProbeFacts, host: Host) -> Finding:
    """GPUs that the inventory names must be there; otherwise none is needed."""
    there = ", ".join(facts.gpus) or "none"
    if host.gpus and max(host.gpus) >= len(facts.gpus):
        return Finding(
            probe="gpu",
            verdict="failed",
            detail=f"the inventory names GPU {max(host.gpus)}; the host has: {there}",
            fix="correct `gpus:`, or see what nvidia-smi says there",
        )
    return passed("gpu", there)


def judge_clock(offset: ClockOffset) -> Finding:
    """Compares wall clocks; traces do not depend on them, but users who compare logs do."""
    offset_s, error_s = offset.offset_ns * 1e-9, offset.error_ns * 1e-9
    detail = f"{offset_s:+.4f} s against here, within {error_s:.4f} s"
    if abs(offset_s) - error_s > MAX_SKEW_S:
        return Finding(
            probe="clock",
            verdict="warning",
            detail=detail,
            fix="run chrony or ntpd there; traces are correct either way",
        )
    return passed("clock", detail)


def judge_leftovers(facts: ProbeFacts) -> Finding:
    """Processes of other runs on the host."""
    runs: dict[str, int] = {}
    for text in facts.leftovers.values():
        run = text.rpartition("@")[0]
        runs[run] = runs.get(run, 0) + 1
    if not runs:
        return passed("leftovers", "none")
    return Finding(
        probe="leftovers",
        verdict="warning",
        detail=", ".join(f"{plural(count, 'process')} of run {run}" for run, count in runs.items()),
        fix="; ".join(f"tianji down {run}" for run in runs),
    )


class _ClockAnswer(msgspec.Struct):
    monotonic_ns: int
    unix_ns: int


def measure_clock(node: Node, python: str) -> ClockOffset:
    """A host's wall clock minus ours.

    Raises:
        TianJiError: It does not answer.
    """
    connection = node.spawn(probe_command(python, "clock"), {})
    answers = []
    try:
        for _ in range(NUM_PINGS):
            sent_ns = time.time_ns()
            os.write(connection.to_supervisor, b"\n")
            line = read_line(connection.from_supervisor)
            heard_ns = time.time_ns()
            if not line:
                raise TianJiError(f"its clock does not answer: {connection.error_output()}")
            answer = msgspec.json.decode(line, type=_ClockAnswer)
            answers.append(ClockAnswer(sent_ns, answer.unix_ns, heard_ns))
    except (OSError, msgspec.DecodeError) as error:
        said = connection.error_output() or str(error)
        raise TianJiError(f"its clock does not answer: {said}", where=node.name) from error
    finally:
        connection.close_input()
        connection.wait(5.0)
        connection.close()
    return estimate(answers)


def read_line(fd: int) -> bytes:
    """One line; less if the writer ends."""
    data = b""
    while not data.endswith(b"\n"):
        part = os.read(fd, 1)
        if not part:
            break
        data += part
    return data
