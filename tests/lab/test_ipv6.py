"""Runs of several hosts that know each other by IPv6 addresses alone, over real SSH.

The lab's own addresses are of IPv4; its cables carry anything. So each host gets a second address
and a second sshd, which listens there alone.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.ipv6 import needs_ipv6
from tests.helpers.ssh_kit import SHORT, Bench, Command

pytestmark = [pytest.mark.lab, needs_ipv6]

NETWORK = "fd77:7a6a::"
PORT = 2222


def run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"


@dataclass
class Six:
    """The lab's hosts at their second addresses.

    Attributes:
        addresses: By host.
        known_hosts: Their keys, as ssh-keyscan writes them for a port that is not 22.
    """

    bench: Bench
    addresses: dict[str, str]
    known_hosts: Path

    def inventory(self, entries: dict[str, str]) -> Path:
        """An inventory; `entries` says how each host is named, as in `ssh_host: ...`."""
        shared = {
            "user": "root",
            "key": self.bench.lab.paths.key,
            "known_hosts": self.known_hosts,
            "python": self.bench.lab.load().plan.request.python,
            "ports": "29500-29599",
        }
        lines = ["version: 1", "defaults:", *(f"  {key}: '{shared[key]}'" for key in shared)]
        lines += ["hosts:", *(f"  {host}: {{{entry}}}" for host, entry in entries.items())]
        path = self.bench.results / "six.yaml"
        path.write_text("\n".join([*lines, ""]))
        return path

    def numbers(self, *, as_address: bool = False) -> dict[str, str]:
        """Entries that name hosts by address, and maybe say so twice."""
        again = ", address: '{}'" if as_address else ""
        return {
            host: f"ssh_host: '{address}', port: {PORT}" + again.format(address)
            for host, address in self.addresses.items()
        }


@pytest.fixture
def six(bench: Bench) -> Iterator[Six]:
    state = bench.lab.load()
    addresses = {host.name: f"{NETWORK}{host.number + 0x10:x}" for host in state.plan.hosts}
    run("ip", "addr", "add", f"{NETWORK}1/64", "dev", state.plan.link, "nodad")
    lines = []
    for host in state.plan.hosts:
        address = addresses[host.name]
        run("ip", "-n", host.netns, "addr", "add", f"{address}/64", "dev", "eth0", "nodad")
        script = f"""
            sed -e 's/^ListenAddress.*/ListenAddress [{address}]:{PORT}/' \\
                -e 's,^PidFile.*,PidFile /run/six.pid,' /etc/tianji-lab/sshd_config > /run/six
            exec /usr/sbin/sshd -f /run/six
        """
        done = bench.lab.exec(host.name, ["sh", "-ec", script])
        assert done.returncode == 0, done.stderr
        key = bench.lab.exec(host.name, ["cat", "/etc/tianji-lab/ssh_host_ed25519_key.pub"])
        lines.append(f"[{address}]:{PORT} {' '.join(key.stdout.split()[:2])}\n")
    known_hosts = bench.results / "known_six"
    known_hosts.write_text("".join(lines))
    yield Six(bench, addresses, known_hosts)
    for host in state.plan.hosts:
        bench.lab.exec(host.name, ["sh", "-c", "kill $(cat /run/six.pid)"])
        address = addresses[host.name]
        run("ip", "-n", host.netns, "addr", "del", f"{address}/64", "dev", "eth0")
    run("ip", "addr", "del", f"{NETWORK}1/64", "dev", state.plan.link)


def check_trained(command: Command, six: Six, num_hosts: int) -> None:
    assert command.wait(120) == 0, command.said
    assert command.summary["status"] == "ok"
    assert command.summary["num_hosts"] == num_hosts
    assert command.summary["env_steps_consumed"] >= 6000
    six.bench.assert_nothing_left()


@pytest.mark.parametrize("as_address", [False, True], ids=["ssh_host", "ssh_host and address"])
def test_a_run_of_four_hosts_trains_and_ends(six: Six, as_address: bool) -> None:
    command = six.bench.tianji(
        *("up", *SHORT, "-s", "stop.env_steps=6000", "-s", "actors=3"),
        run="six",
        inventory=six.inventory(six.numbers(as_address=as_address)),
    )
    check_trained(command, six, num_hosts=4)
    text = " ".join(path.read_text() for path in command.run_dir.rglob("*.json"))
    assert all(address in text for address in six.addresses.values())
