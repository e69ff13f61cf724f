"""Delay and loss: finds what this kernel supports, and replaces the rest."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

from engine.errors import RunFailedError
from tianji_cli.lab import network
from tianji_cli.lab.network import DelayMethod, LossMethod, Methods, NetworkCommand
from tianji_cli.lab.plan import LabPaths, LabRequest
from tianji_cli.lab.processes import LabProcessId, reap
from tianji_cli.lab.state import LabState, save_state
from tianji_cli.lab.system import attempt, find_program, perform, perform_all, require_program

DELAYER = Path(__file__).with_name("delayer.py")
DELAYER_TIMEOUT_S = 10.0
_NETEM = "ip link set lo up && tc qdisc add dev lo root netem delay 1ms loss 1%"
_BRIDGE_FILTER = "ip link add br0 type bridge && sysctl -qw net.bridge.bridge-nf-call-iptables=1"
_LOSS = "iptables -A FORWARD -m statistic --mode random --probability 0.01 -j DROP"
_DELAY = "iptables -A FORWARD -j NFQUEUE --queue-num 0 --queue-bypass"


def choose_methods(request: LabRequest) -> Methods:
    """How this kernel can delay and lose packets; tries it, and only what is needed."""
    if not request.delay_s and not request.loss:
        return Methods()
    has_netem = _works(_NETEM)
    delay: DelayMethod = "off"
    loss: LossMethod = "off"
    if request.loss:
        loss = "netem" if has_netem else _loss_without_netem()
    if request.delay_s:
        delay = "netem" if has_netem else _delay_without_netem()
    return Methods(
        delay=delay,
        loss=loss,
        has_single_packets=loss in ("netem", "iptables") and find_program("ethtool") is not None,
    )


def _loss_without_netem() -> LossMethod:
    return "iptables" if _works(f"{_BRIDGE_FILTER} && {_LOSS}") else "unavailable"


def _delay_without_netem() -> DelayMethod:
    script = f'{_BRIDGE_FILTER} && {_DELAY} && exec "$0" -I "$1" 0 --once'
    return "nfqueue" if _works(script, sys.executable, str(DELAYER)) else "unavailable"


def _works(script: str, *arguments: str) -> bool:
    """Whether a fixed script succeeds in a network namespace that ends with it."""
    words = ("unshare", "--net", "sh", "-ec", script, *arguments)
    return attempt(NetworkCommand(words)).returncode == 0


def apply_shaping(state: LabState, paths: LabPaths) -> None:
    """Rate, delay and loss for every host.

    Raises:
        RunFailedError: The kernel refuses settings that it accepted in the trial.
    """
    plan, methods = state.plan, state.methods
    perform_all(network.shape(plan, methods, plan.hosts))
    filters = network.filter_all(plan, methods)
    if filters:
        sysctl = ("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
        perform(NetworkCommand((*network.in_namespace(plan.fabric), *sysctl)))
        perform_all(filters)
    if methods.delay == "nfqueue":
        _start_delayer(state, paths)


def _start_delayer(state: LabState, paths: LabPaths) -> None:
    """Starts the process that delays packets, and waits until it does."""
    namespace = network.in_namespace(state.plan.fabric)
    delay_s = f"{state.plan.request.delay_s:.6f}"
    argv = [require_program(namespace[0]), *namespace[1:], sys.executable, "-I", str(DELAYER)]
    reader, writer = os.pipe()
    try:
        pid = os.posix_spawn(
            argv[0],
            [*argv, delay_s],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, writer, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setsid=True,
        )
        os.close(writer)
        state.delayer = LabProcessId.of(pid)
        save_state(paths, state)
        is_heard = bool(select.select([reader], [], [], DELAYER_TIMEOUT_S)[0])
        if not is_heard or os.read(reader, 5) != b"ready":
            reap(pid)
            raise RunFailedError("the process that delays packets did not start")
    finally:
        os.close(reader)
