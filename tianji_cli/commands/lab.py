"""`tianji lab`: a throw-away cluster of real sshd hosts on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from tianji_cli.commands.options import optional, output_of
from tianji_cli.output import Output

if TYPE_CHECKING:
    from tianji_cli.lab.lab import Lab
    from tianji_cli.lab.network import Methods

LAB_SCHEMA_VERSION = 1

app = typer.Typer(
    name="lab",
    help="A throw-away cluster of real sshd hosts on this machine (Linux, root).",
    no_args_is_help=True,
    rich_markup_mode=None,
)

DirectoryOption = Annotated[
    Path, typer.Option("--dir", metavar="DIR", help="Directory of the lab.")
]
HostArgument = Annotated[
    str, typer.Argument(metavar="HOST", help="A host of the lab, such as tj1.")
]
HOME = Path("~/.tianji/lab")


HostsOption = Annotated[int, typer.Option("--hosts", metavar="N", help="Number of hosts.")]
RateOption = Annotated[
    str, typer.Option("--rate", metavar="RATE", help="Bandwidth of each link, both ways, or off.")
]
DelayOption = Annotated[
    str,
    typer.Option("--delay", metavar="TIME", help="Delay of packets leaving a host, such as 0.2ms."),
]
LossOption = Annotated[
    str,
    typer.Option("--loss", metavar="PCT", help="Per cent of packets leaving a host that are lost."),
]
HideOption = Annotated[
    list[Path] | None,
    optional("--hide", metavar="DIR", help="Directory to hide from hosts. Repeatable."),
]
ShareOption = Annotated[
    list[Path] | None,
    optional("--share", metavar="DIR", help="Directory that hosts can read. Repeatable."),
]
LeaveOption = Annotated[
    str, typer.Option("--leave", metavar="SIZE", help="Free space to leave, such as 8mib.")
]


@app.command()
def up(
    context: typer.Context,
    hosts: HostsOption = 8,
    rate: RateOption = "1gbit",
    delay: DelayOption = "off",
    loss: LossOption = "off",
    directory: DirectoryOption = HOME,
    hide: HideOption = None,
    share: ShareOption = None,
) -> None:
    """Start a lab and write its inventory."""
    from tianji_cli.lab import Lab

    lab = Lab.up(
        hosts=hosts,
        rate=rate,
        delay=delay,
        loss=loss,
        directory=directory,
        hide=hide or (),
        share=share or (),
    )
    output = output_of(context)
    _show(lab, output)
    output.say(f"next: tianji up {lab.inventory}")


@app.command()
def status(context: typer.Context, directory: DirectoryOption = HOME) -> None:
    """Show every host: address, state, processes, shaping."""
    _show(_open(directory), output_of(context))


@app.command()
def down(context: typer.Context, directory: DirectoryOption = HOME) -> None:
    """Take the lab down and verify that nothing of it is left."""
    from tianji_cli.lab.lab import absolute
    from tianji_cli.lab.lab import down as take_down
    from tianji_cli.lab.quantities import count

    output = output_of(context)
    state = take_down(directory)
    place = str(absolute(directory))
    if output.is_json:
        ended = [host.name for host in state.plan.hosts] if state else []
        output.document(LabDownDocument(directory=place, hosts=ended))
    elif state is None:
        output.say(f"{place}: no lab is running here")
    else:
        output.say(f"{place}: {count(len(state.plan.hosts), 'host')} ended, nothing is left")


@app.command()
def kill(context: typer.Context, host: HostArgument, directory: DirectoryOption = HOME) -> None:
    """Kill every process of a host; its disk is kept."""
    lab = _open(directory)
    lab.kill(host)
    _tell(lab, f"{host}: dead", output_of(context))


@app.command()
def crash(context: typer.Context, host: HostArgument, directory: DirectoryOption = HOME) -> None:
    """Power a host off: like kill, but its peers get no notice."""
    lab = _open(directory)
    lab.crash(host)
    _tell(lab, f"{host}: without power", output_of(context))


@app.command()
def start(context: typer.Context, host: HostArgument, directory: DirectoryOption = HOME) -> None:
    """Start a dead host again, with the same address, keys and disk."""
    lab = _open(directory)
    lab.start(host)
    _tell(lab, f"{host}: up", output_of(context))


@app.command()
def cut(context: typer.Context, host: HostArgument, directory: DirectoryOption = HOME) -> None:
    """Unplug a host: its packets are dropped silently."""
    lab = _open(directory)
    lab.cut(host)
    _tell(lab, f"{host}: cut", output_of(context))


@app.command()
def heal(context: typer.Context, host: HostArgument, directory: DirectoryOption = HOME) -> None:
    """Plug a host in again."""
    lab = _open(directory)
    lab.heal(host)
    _tell(lab, f"{host}: plugged in", output_of(context))


@app.command()
def freeze(context: typer.Context, host: HostArgument, directory: DirectoryOption = HOME) -> None:
    """Suspend every process of a host."""
    lab = _open(directory)
    lab.freeze(host)
    _tell(lab, f"{host}: frozen", output_of(context))


@app.command()
def thaw(context: typer.Context, host: HostArgument, directory: DirectoryOption = HOME) -> None:
    """Resume a frozen host."""
    lab = _open(directory)
    lab.thaw(host)
    _tell(lab, f"{host}: thawed", output_of(context))


@app.command()
def fill(
    context: typer.Context,
    host: HostArgument,
    leave: LeaveOption = "0",
    directory: DirectoryOption = HOME,
) -> None:
    """Fill a host's disk."""
    lab = _open(directory)
    lab.fill(host, leave=leave)
    _tell(
        lab,
        f"{host}: disk full" + ("" if leave == "0" else f" but for {leave}"),
        output_of(context),
    )


@app.command()
def free(context: typer.Context, host: HostArgument, directory: DirectoryOption = HOME) -> None:
    """Free a disk that `fill` filled."""
    lab = _open(directory)
    lab.free(host)
    _tell(lab, f"{host}: disk has room", output_of(context))


class LabDownDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `lab down --json` prints: the hosts that were ended."""

    schema_version: int = LAB_SCHEMA_VERSION
    directory: str
    hosts: list[str]


def _open(directory: Path) -> Lab:
    from tianji_cli.lab import Lab
    from tianji_cli.lab.lab import absolute

    return Lab(absolute(directory))


def _tell(lab: Lab, text: str, output: Output) -> None:
    """Prints a message, or with `--json` the state of all hosts."""
    if output.is_json:
        _show(lab, output)
    else:
        output.say(text)


def _show(lab: Lab, output: Output) -> None:
    from tianji_cli.render.lab import lab_table

    state, rows = lab.load(), lab.status()
    request, methods = state.plan.request, state.methods
    for warning in warnings(methods):
        output.say(f"warning: {warning}")
    if not output.is_json:
        output.data.print(lab_table(rows, request, methods))
        output.say(f"inventory: {lab.inventory}")
        return
    output.document(
        {
            "schema_version": LAB_SCHEMA_VERSION,
            "directory": state.plan.directory,
            "inventory": str(lab.inventory),
            "key": str(lab.paths.key),
            "known_hosts": str(lab.paths.known_hosts),
            "operator_address": state.plan.operator_address,
            "rate_bits_per_s": request.rate_bits_per_s,
            "delay_s": request.delay_s,
            "delay_method": methods.delay,
            "loss": request.loss,
            "loss_method": methods.loss,
            "hosts": rows,
        }
    )


def warnings(methods: Methods) -> list[str]:
    """Warnings about delay and loss on this machine."""
    found = [
        f"{what} is not available here: the kernel has neither netem nor a replacement for it"
        for what, method in (("delay", methods.delay), ("loss", methods.loss))
        if method == "unavailable"
    ]
    if methods.delay == "nfqueue":
        found.append("delay is emulated in user space (no netem), which adds 0.1 ms or more")
    if methods.loss in ("netem", "iptables") and not methods.has_single_packets:
        found.append("without ethtool, each loss drops up to 64 KB of a stream at once")
    return found
