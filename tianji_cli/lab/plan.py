"""Parts of a lab: names, addresses, directories. Pure data, and part of the state file.

Everything that the machine must later give back carries the lab's random id in its name, so that
`lab down` cannot mistake those of another lab for its own.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.config.config_file import suggest
from engine.errors import ConfigError
from engine.wording import plural

MAX_HOSTS = 64
NUM_SUBNETS = 256
SSH_PORT = 22
DATA_PORTS = "29500-29599"
_FIRST_HOST = 11
"""Last byte of the first host's address; .1 is the operator's."""


class LabRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for.

    Attributes:
        num_hosts: How many hosts.
        rate_bits_per_s: Of every host's link, in each direction; None is unshaped.
        delay_s: What every packet that leaves a host waits.
        loss: Fraction of the packets leaving a host that are dropped.
        hide: Directories of this machine that the hosts must not have.
        share: Directories of this machine that the hosts see, read-only, as they are here.
        fresh: Directories that are empty on a host's new disk: homes.
        python: Interpreter for the inventory.
    """

    num_hosts: int = 8
    rate_bits_per_s: int | None = 1_000_000_000
    delay_s: float = 0.0
    loss: float = 0.0
    hide: tuple[str, ...] = ()
    share: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    python: str = ""


class HostPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One host.

    Attributes:
        name: Its hostname, `tj1`.
        number: From 1.
        address, mac: Of its one network interface, `eth0`.
        ssh_port: Where its sshd listens.
        netns: Name of its network namespace.
        bridge_port: The other end of its cable, in the fabric.
        disk: Mount point of its disk: `upper`, `work`, `root`.
        log: Log file of its sshd.
    """

    name: str
    number: int
    address: str
    mac: str
    ssh_port: int
    netns: str
    bridge_port: str
    disk: str
    log: str


class LabPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A whole lab.

    Attributes:
        lab_id: Random, part of every name below.
        directory: Holds its files; see `LabPaths`.
        subnet: Third byte of all addresses.
        fabric: Network namespace of the bridge.
        link: The operator's cable to the bridge, in this machine's own network namespace.
        operator_address: Of that cable.
        disks: Mount point of the tmpfs that the disks are mounted in.
        request: What the user asked for.
    """

    lab_id: str
    directory: str
    subnet: int
    fabric: str
    link: str
    operator_address: str
    disks: str
    request: LabRequest
    hosts: tuple[HostPlan, ...]

    @property
    def namespaces(self) -> tuple[str, ...]:
        """All network namespaces, the fabric's last."""
        return (*(host.netns for host in self.hosts), self.fabric)

    def host(self, name: str) -> HostPlan:
        """The host of that name.

        Raises:
            ConfigError: There is none.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        known = [host.name for host in self.hosts]
        raise ConfigError(f"no such host: {name!r}", where=self.directory, fix=suggest(name, known))


class LabPaths:
    """The only place that names the files of a lab.

    Args:
        directory: The lab's own directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state.json"
        self.inventory = directory / "inventory.yaml"
        self.key = directory / "id_ed25519"
        self.public_key = directory / "id_ed25519.pub"
        self.known_hosts = directory / "known_hosts"
        self.logs = directory / "logs"
        self.disks = directory / "disks"

    def log(self, host: str) -> Path:
        return self.logs / f"{host}.log"


def check_request(request: LabRequest) -> None:
    """Raises ConfigError for a request that no machine could meet."""
    if not 1 <= request.num_hosts <= MAX_HOSTS:
        raise ConfigError(
            f"a lab cannot have {plural(request.num_hosts, 'host')}",
            where="--hosts",
            fix=f"between 1 and {MAX_HOSTS}",
        )
    for option, paths in (("--hide", request.hide), ("--share", request.share)):
        for path in paths:
            if not Path(path).is_absolute() or Path(path) == Path("/"):
                raise ConfigError(f"{path!r} is not an absolute directory", where=option)


def plan_lab(request: LabRequest, paths: LabPaths, *, lab_id: str, subnet: int) -> LabPlan:
    """Lays out a lab.

    Args:
        request: The checked request.
        paths: Where its files go.
        lab_id: A fresh random id, 8 characters at most.
        subnet: 0 to 255; the lab's network is 10.77.SUBNET.0/24.
    """
    hosts = tuple(
        HostPlan(
            name=f"tj{number}",
            number=number,
            address=f"10.77.{subnet}.{_FIRST_HOST - 1 + number}",
            mac=f"02:77:00:00:{subnet:02x}:{number:02x}",
            ssh_port=SSH_PORT,
            netns=f"tjlab-{lab_id}-{number}",
            bridge_port=f"p{number}",
            disk=str(paths.disks / f"tj{number}"),
            log=str(paths.log(f"tj{number}")),
        )
        for number in range(1, request.num_hosts + 1)
    )
    return LabPlan(
        lab_id=lab_id,
        directory=str(paths.directory),
        subnet=subnet,
        fabric=f"tjlab-{lab_id}",
        link=f"tjlab{subnet}",
        operator_address=f"10.77.{subnet}.1",
        disks=str(paths.disks),
        request=request,
        hosts=hosts,
    )
