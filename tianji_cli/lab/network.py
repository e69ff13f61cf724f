"""The commands that build, shape and cut the lab's network. Pure: nothing is run here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from tianji_cli.lab.plan import HostPlan, LabPlan
from tianji_cli.lab.quantities import format_rate

BRIDGE = "br0"
OPERATOR_PORT = "op"
DELAY_QUEUE = 0
"""Number of the netfilter queue that delayed packets wait in."""

_MIN_BURST_BYTES = 16 * 2**10
_MAX_BURST_BYTES = 2**20
_BURST_S = 0.008
_TBF_LATENCY = "10ms"
_NETEM_LIMIT_PACKETS = 100_000

LossMethod = Literal["off", "netem", "iptables", "unavailable"]
DelayMethod = Literal["off", "netem", "nfqueue", "unavailable"]


class NetworkCommand(msgspec.Struct, frozen=True):
    """A program, its arguments, and its standard input."""

    argv: tuple[str, ...]
    stdin: str = ""


class Methods(msgspec.Struct, frozen=True, kw_only=True):
    """How this machine implements delay and loss.

    Attributes:
        has_single_packets: Segmentation offload is off, so that a loss is one real packet.
    """

    delay: DelayMethod = "off"
    loss: LossMethod = "off"
    has_single_packets: bool = False


def add_namespaces(plan: LabPlan) -> list[NetworkCommand]:
    return [add_namespace(name) for name in reversed(plan.namespaces)]


def add_namespace(name: str) -> NetworkCommand:
    return NetworkCommand(("ip", "netns", "add", name))


def remove_namespace(name: str) -> NetworkCommand:
    return NetworkCommand(("ip", "netns", "del", name))


def add_operator_link(plan: LabPlan) -> NetworkCommand:
    """Fails if the link exists: its name identifies the subnet, so only one lab can have it."""
    ends = (plan.link, "type", "veth", "peer", "name", OPERATOR_PORT, "netns", plan.fabric)
    return NetworkCommand(("ip", "link", "add", *ends))


def connect_all(plan: LabPlan) -> list[NetworkCommand]:
    """Bridge, cables and addresses. One process per namespace."""
    fabric = [
        "link set lo up",
        f"link add {BRIDGE} type bridge forward_delay 0",
        f"link set {BRIDGE} up",
        f"link set {OPERATOR_PORT} master {BRIDGE}",
        f"link set {OPERATOR_PORT} up",
    ]
    for host in plan.hosts:
        fabric += _cable_lines(host)
    operator = [
        f"link set {plan.link} alias {plan.fabric}",
        f"addr add {plan.operator_address}/24 dev {plan.link}",
        f"link set {plan.link} up",
    ]
    return [
        _batch(("ip", "-n", plan.fabric), fabric),
        _batch(("ip",), operator),
        *(_address(host) for host in plan.hosts),
    ]


def connect_host(plan: LabPlan, host: HostPlan) -> list[NetworkCommand]:
    """One host's cable and address, in a namespace that is there."""
    return [_batch(("ip", "-n", plan.fabric), _cable_lines(host)), _address(host)]


def disconnect_host(plan: LabPlan, host: HostPlan) -> NetworkCommand:
    return NetworkCommand(("ip", "-n", plan.fabric, "link", "del", host.bridge_port))


def _cable_lines(host: HostPlan) -> list[str]:
    port = host.bridge_port
    return [
        f"link add {port} type veth peer name eth0 address {host.mac} netns {host.netns}",
        f"link set {port} master {BRIDGE}",
        f"link set {port} up",
    ]


def _address(host: HostPlan) -> NetworkCommand:
    lines = ["link set lo up", f"addr add {host.address}/24 dev eth0", "link set eth0 up"]
    return _batch(("ip", "-n", host.netns), lines)


def shape(plan: LabPlan, methods: Methods, hosts: Sequence[HostPlan]) -> list[NetworkCommand]:
    """Rate on both ends of every cable; delay and loss on what leaves a host, where netem is."""
    netem = _netem(plan, methods)
    tbf = tbf_arguments(plan.request.rate_bits_per_s)
    commands = []
    if tbf:
        lines = [f"qdisc add dev {host.bridge_port} root {tbf}" for host in hosts]
        commands.append(_batch(("tc", "-n", plan.fabric), lines))
    for host in hosts:
        lines = []
        if netem:
            lines.append(f"qdisc add dev eth0 root handle 1: {netem}")
        if tbf:
            lines.append(f"qdisc add dev eth0 {'parent 1:1' if netem else 'root'} {tbf}")
        if lines:
            commands.append(_batch(("tc", "-n", host.netns), lines))
    if methods.has_single_packets:
        commands += _single_packets(plan, hosts)
    return commands


def tbf_arguments(rate_bits_per_s: int | None) -> str:
    """A token bucket of 8 ms, within 16 KiB and 1 MiB; empty when unshaped."""
    if rate_bits_per_s is None:
        return ""
    burst_bytes = round(rate_bits_per_s / 8 * _BURST_S)
    burst_bytes = max(_MIN_BURST_BYTES, min(_MAX_BURST_BYTES, burst_bytes))
    return f"tbf rate {format_rate(rate_bits_per_s)} burst {burst_bytes} latency {_TBF_LATENCY}"


def _netem(plan: LabPlan, methods: Methods) -> str:
    words = []
    if methods.delay == "netem":
        words.append(f"delay {plan.request.delay_s * 1e6:.0f}us")
    if methods.loss == "netem":
        words.append(f"loss {plan.request.loss * 100:g}%")
    return " ".join(["netem", *words, f"limit {_NETEM_LIMIT_PACKETS}"]) if words else ""


def filter_all(plan: LabPlan, methods: Methods) -> list[NetworkCommand]:
    """What iptables does in the fabric where netem is missing: loss first, then delay."""
    rules: list[tuple[str, ...]] = []
    if methods.loss == "iptables":
        probability = f"{plan.request.loss:.6f}"
        rules.append(
            ("-m", "statistic", "--mode", "random", "--probability", probability, "-j", "DROP")
        )
    if methods.delay == "nfqueue":
        rules.append(("-j", "NFQUEUE", "--queue-num", str(DELAY_QUEUE), "--queue-bypass"))
    append = (*in_namespace(plan.fabric), "iptables", "-A", "FORWARD")
    return [NetworkCommand((*append, "!", "-s", plan.operator_address, *rule)) for rule in rules]


def _single_packets(plan: LabPlan, hosts: Sequence[HostPlan]) -> list[NetworkCommand]:
    """Switches segmentation offload off, or one lost "packet" would be up to 64 KB of a stream."""
    offloads = ("tso", "off", "gso", "off", "gro", "off")
    ends = [(plan.fabric, host.bridge_port) for host in hosts]
    ends += [(host.netns, "eth0") for host in hosts]
    return [
        NetworkCommand((*in_namespace(netns), "ethtool", "-K", device, *offloads))
        for netns, device in ends
    ]


def cut(plan: LabPlan, host: HostPlan) -> NetworkCommand:
    """A silent black hole: the carrier stays up, packets go nowhere."""
    return NetworkCommand(("ip", "-n", plan.fabric, "link", "set", host.bridge_port, "nomaster"))


def heal(plan: LabPlan, host: HostPlan) -> NetworkCommand:
    lines = [
        f"link set {host.bridge_port} master {BRIDGE}",
        f"link set {host.bridge_port} up",
    ]
    return _batch(("ip", "-n", plan.fabric), lines)


def list_ports(plan: LabPlan) -> NetworkCommand:
    """Which cables are plugged in, as JSON for `plugged_ports`."""
    return NetworkCommand(("ip", "-json", "-n", plan.fabric, "link", "show", "type", "veth"))


def plugged_ports(listing: str) -> frozenset[str]:
    """Names of the cables that end in the bridge."""
    links = msgspec.json.decode(listing or "[]", type=list[_Link])
    return frozenset(link.ifname for link in links if link.master == BRIDGE)


class _Link(msgspec.Struct):
    ifname: str = ""
    master: str | None = None


def disconnect(plan: LabPlan) -> NetworkCommand:
    """Removes the operator's cable from the fabric's end, which certainly belongs to this lab."""
    return NetworkCommand(("ip", "-n", plan.fabric, "link", "del", OPERATOR_PORT))


def in_namespace(netns: str) -> tuple[str, ...]:
    """Words in front of a program that make it run in a network namespace, as the same process."""
    return ("nsenter", f"--net=/run/netns/{netns}")


def _batch(program: tuple[str, ...], lines: list[str]) -> NetworkCommand:
    return NetworkCommand((*program, "-batch", "-"), "\n".join([*lines, ""]))
