"""What Slurm says of a job's allocation: its nodes, their addresses, cores and GPUs. Pure.

Formats: sbatch(1) for the variables, scontrol(1) for `--oneliner` records of `KEY=VALUE` words.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.errors import PreflightError
from engine.wording import plural

JOB_VARIABLE = "SLURM_JOB_ID"
NODES_VARIABLE = "SLURM_JOB_NODELIST"
CPUS_VARIABLE = "SLURM_JOB_CPUS_PER_NODE"
MAX_NODES = 4096
_DOWN = ("DOWN", "FAIL", "POWER", "NOT_RESPONDING", "REBOOT")
_PIECE = re.compile(r"(?P<prefix>[^\[\],]*)(?:\[(?P<numbers>[0-9,-]+)\])?")
_COUNT = re.compile(r"(?P<cpus>\d+)(?:\(x(?P<times>\d+)\))?")
_GRES_OF_NODES = re.compile(r"\bNodes=(?P<nodes>\S+) CPU_IDs=\S* Mem=\S*(?: GRES=(?P<gres>\S*))?")
_GPUS = re.compile(r"(?:^|,)(?:gres[:/])?gpu(?::[^:(,\d][^:(,]*)?:(?P<count>\d+)")


@dataclass(frozen=True)
class AllocatedNode:
    """A node of a job.

    Attributes:
        name: Of the node in Slurm.
        address: Name or IP address at which the others reach it (`NodeAddr`).
        num_cpus: Those that the job has there.
        num_gpus: Those that the job has there; None if Slurm knows of no GPU in this node.
        problem: Why no step can start there, in Slurm's words; empty if it can.
    """

    name: str
    address: str
    num_cpus: int
    num_gpus: int | None = None
    problem: str = ""


@dataclass(frozen=True)
class Allocation:
    """A job and its nodes, in Slurm's order."""

    job: str
    nodes: tuple[AllocatedNode, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.nodes)


def allocation_of(variables: Mapping[str, str], nodes_text: str, job_text: str) -> Allocation:
    """The allocation of the job in which these variables are set.

    Args:
        variables: The environment of a process of the job.
        nodes_text: `scontrol --oneliner show node NODES`.
        job_text: `scontrol --oneliner --details show job JOB`.

    Raises:
        PreflightError: Something is missing or cannot be read.
    """
    names = expand_nodes(variables.get(NODES_VARIABLE, ""))
    counts = variables.get(CPUS_VARIABLE, "")
    cpus = cpus_per_node(counts)
    if not names or len(cpus) != len(names):
        raise PreflightError(
            f"{plural(len(names), 'node')}, but {CPUS_VARIABLE} is {counts!r}",
            where=NODES_VARIABLE,
        )
    records = {record["NodeName"]: record for record in _records(nodes_text, "NodeName")}
    gpus = gpus_per_node(job_text)
    found = []
    for name, num_cpus in zip(names, cpus, strict=True):
        record = records.get(name)
        if record is None:
            raise PreflightError(f"scontrol says nothing of node {name}", where=NODES_VARIABLE)
        has_gpus = _GPUS.search(record.get("Gres", "")) is not None
        num_gpus = gpus.get(name, 0) if has_gpus else None
        address = record.get("NodeAddr") or name
        problem = _problem_of(record.get("State", ""))
        found.append(AllocatedNode(name, address, num_cpus, num_gpus, problem))
    return Allocation(variables.get(JOB_VARIABLE, ""), tuple(found))


def expand_nodes(text: str) -> list[str]:
    """The names that a node list of Slurm stands for.

    >>> expand_nodes("tj[1-3,7],gpu[08-10],login")
    ['tj1', 'tj2', 'tj3', 'tj7', 'gpu08', 'gpu09', 'gpu10', 'login']
    >>> expand_nodes("rack[0-1]n[1-2]-ib")
    ['rack0n1-ib', 'rack0n2-ib', 'rack1n1-ib', 'rack1n2-ib']

    Raises:
        PreflightError: It is no node list.
    """
    names: list[str] = []
    for item in _split_outside_brackets(text):
        parts: list[list[str]] = []
        end = 0
        for match in _PIECE.finditer(item):
            if match.start() != end or not match[0]:
                break
            parts.append([match["prefix"]])
            if match["numbers"] is not None:
                parts.append(_numbers(match["numbers"], item))
            end = match.end()
        if end != len(item) or not item:
            raise PreflightError(f"{text!r} is no list of nodes", where=NODES_VARIABLE)
        names += ["".join(words) for words in itertools.product(*parts)]
        if len(names) > MAX_NODES:
            raise PreflightError(f"more than {MAX_NODES} nodes", where=NODES_VARIABLE)
    return names


def _split_outside_brackets(text: str) -> list[str]:
    """At commas that separate names, not numbers."""
    return re.split(r",(?![^\[]*\])", text) if text else []


def _numbers(text: str, item: str) -> list[str]:
    """`08-10,12` as words; leading zeros are kept."""
    found: list[str] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        last = last or first
        if (
            not first.isdigit()
            or not last.isdigit()
            or int(last) - int(first) not in range(MAX_NODES)
        ):
            raise PreflightError(f"{item!r} is no list of nodes", where=NODES_VARIABLE)
        found += [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)]
    return found


def cpus_per_node(text: str) -> list[int]:
    """The CPUs of each node, in the order of the node list.

    >>> cpus_per_node("2(x3),1")
    [2, 2, 2, 1]

    Raises:
        PreflightError: It is no such list.
    """
    found: list[int] = []
    for item in text.split(","):
        match = _COUNT.fullmatch(item)
        times = int(match["times"] or 1) if match else 0
        if match is None or len(found) + times > MAX_NODES:
            raise PreflightError(f"{text!r} is no list of CPUs per node", where=CPUS_VARIABLE)
        found += [int(match["cpus"])] * times
    return found


def gpus_per_node(job_text: str) -> dict[str, int]:
    """The GPUs that a job has on each of its nodes, as far as its record tells.

    >>> gpus_per_node("NumNodes=2 Nodes=a[1-2] CPU_IDs=0-1 Mem=0 GRES=gpu:h100:2(IDX:0,3)")
    {'a1': 2, 'a2': 2}
    """
    return {
        name: sum(int(gpu["count"]) for gpu in _GPUS.finditer(match["gres"] or ""))
        for match in _GRES_OF_NODES.finditer(job_text)
        for name in expand_nodes(match["nodes"])
    }


def _records(text: str, first: str) -> list[dict[str, str]]:
    """One for each line; a value ends where the next `KEY=` begins."""
    lines = [line for line in text.splitlines() if line.startswith(f"{first}=")]
    return [
        {
            key: value.strip()
            for key, value in re.findall(r"(\w[\w:/]*)=(.*?)(?=\s+\w[\w:/]*=|\s*$)", line)
        }
        for line in lines
    ]


def _problem_of(state: str) -> str:
    """The state of a node on which no step can start; a drained one still serves its jobs.

    >>> _problem_of("ALLOCATED"), _problem_of("DOWN*+DRAIN"), _problem_of("MIXED+DRAIN")
    ('', 'DOWN*+DRAIN', '')
    """
    is_down = "*" in state or any(word in state for word in _DOWN)
    return state if is_down else ""


def words_of(nodes: Sequence[str]) -> str:
    """Some names for an error, not hundreds."""
    shown = ", ".join(nodes[:8])
    return f"{shown}, ... ({plural(len(nodes), 'node')})" if len(nodes) > 8 else shown
