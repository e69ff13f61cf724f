"""The parts of the lab that touch nothing: quantities, plans, commands, texts, state, refusals."""

from __future__ import annotations

import ipaddress
import json
import os
import struct
from pathlib import Path

import msgspec
import pytest
import yaml

from engine.errors import CleanupError, ConfigError, PreflightError
from tianji_cli.lab import delayer, network, quantities, texts
from tianji_cli.lab.cgroups import Freezer
from tianji_cli.lab.network import Methods
from tianji_cli.lab.plan import LabPaths, LabPlan, LabRequest, check_request, plan_lab
from tianji_cli.lab.preflight import check_directory, check_machine, check_shared
from tianji_cli.lab.processes import LabProcessId, ProcessRow, inhabitants
from tianji_cli.lab.state import HostProcesses, LabState, load_state, require_state, save_state
from tianji_cli.lab.system import boot_id
from tianji_cli.lab.teardown import take_down
from tianji_cli.lab.view import VisibleInterpreter, complete, must_share, outermost

PATHS = LabPaths(Path("/somewhere/lab"))


def make_plan(**request) -> LabPlan:
    return plan_lab(LabRequest(**request), PATHS, lab_id="abc123", subnet=7)


def shape(plan: LabPlan, methods: Methods) -> list[network.NetworkCommand]:
    return network.shape(plan, methods, plan.hosts)


# Quantities


@pytest.mark.parametrize(
    ("text", "bits_per_s"),
    [("1gbit", 10**9), ("2.5 Gbit", 25 * 10**8), ("100mbit", 10**8), ("250kbit", 250_000)],
)
def test_rates_are_read_and_written_back(text, bits_per_s):
    assert quantities.parse_rate(text) == bits_per_s
    assert quantities.parse_rate(quantities.format_rate(bits_per_s)) == bits_per_s


def test_off_is_no_rate_no_delay_and_no_loss():
    assert quantities.parse_rate("off") is None
    assert quantities.parse_delay("off") == 0
    assert quantities.parse_loss("none") == 0
    assert quantities.format_rate(None) == "off"


@pytest.mark.parametrize(
    ("text", "delay_s"), [("0.2ms", 0.0002), ("200us", 0.0002), ("1s", 1.0), ("0", 0.0)]
)
def test_delays_are_read_in_seconds(text, delay_s):
    assert quantities.parse_delay(text) == pytest.approx(delay_s)


@pytest.mark.parametrize("text", ["1", "1%", "1 %"])
def test_losses_are_per_cent(text):
    assert quantities.parse_loss(text) == pytest.approx(0.01)


@pytest.mark.parametrize(("text", "size_bytes"), [("0", 0), ("8mib", 2**23), ("0.5 KiB", 512)])
def test_sizes_are_read_in_bytes(text, size_bytes):
    assert quantities.parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("parse", "text", "where"),
    [
        (quantities.parse_rate, "fast", "--rate"),
        (quantities.parse_rate, "1kbit", "--rate"),
        (quantities.parse_rate, "-1gbit", "--rate"),
        (quantities.parse_delay, "3", "--delay"),
        (quantities.parse_delay, "11s", "--delay"),
        (quantities.parse_loss, "95", "--loss"),
        (quantities.parse_loss, "nan", "--loss"),
        (quantities.parse_size, "8", "--leave"),
    ],
)
def test_what_cannot_be_read_names_its_option(parse, text, where):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.where == where
    assert caught.value.fix


# Plans


def test_every_host_has_its_own_address_name_and_namespace():
    plan = make_plan(num_hosts=64)
    for attribute in ("name", "address", "mac", "netns", "bridge_port", "disk", "log"):
        assert len({getattr(host, attribute) for host in plan.hosts}) == 64
    subnet = ipaddress.ip_network("10.77.7.0/24")
    addresses = {plan.operator_address, *(host.address for host in plan.hosts)}
    assert len(addresses) == 65
    assert all(ipaddress.ip_address(address) in subnet for address in addresses)


def test_names_carry_the_id_and_fit_the_kernel():
    plan = plan_lab(LabRequest(num_hosts=64), PATHS, lab_id="abc123", subnet=255)
    assert all("abc123" in name for name in plan.namespaces)
    assert plan.namespaces[-1] == plan.fabric
    assert all(len(name) < 16 for name in (plan.link, plan.hosts[-1].bridge_port))


@pytest.mark.parametrize("num_hosts", [0, -1, 65])
def test_too_few_or_many_hosts_are_refused(num_hosts):
    with pytest.raises(ConfigError, match="cannot have"):
        check_request(LabRequest(num_hosts=num_hosts))


@pytest.mark.parametrize("path", ["/", "relative/path"])
def test_only_absolute_directories_are_hidden(path):
    with pytest.raises(ConfigError, match="not an absolute directory"):
        check_request(LabRequest(hide=(path,)))


def test_an_unknown_host_suggests_the_nearest():
    with pytest.raises(ConfigError, match="tj3"):
        make_plan(num_hosts=3).host("tj33")


# What a host sees


@pytest.mark.parametrize(
    ("path", "is_needed"),
    [("/tmp/venv", True), ("/opt/venv", True), ("/home/me/venv", True), ("/usr", False)],
)
def test_an_interpreter_is_shared_where_hosts_would_lack_it(path, is_needed):
    assert must_share(path, ("/", "/proc", "/opt"), ("/home/me",)) is is_needed


def test_homes_are_empty_but_the_interpreter_is_there():
    request = complete(
        LabRequest(hide=("/srv/src", "/home/me/src")),
        "/home/me/.tianji/lab",
        mounts=("/",),
        homes=("/root", "/home/me", "/root"),
        interpreter=VisibleInterpreter("/home/me/venv/bin/python", ("/home/me/venv", "/usr")),
    )
    assert request.fresh == ("/home/me", "/root")
    assert request.hide == ("/srv/src",)  # the others are gone with the home
    assert request.share == ("/home/me/venv",)
    assert request.python == "/home/me/venv/bin/python"


def test_what_lies_inside_another_is_not_named_twice():
    assert outermost(("/a/b", "/a", "/ab", "/a")) == ("/a", "/ab")


# Commands


def test_unshaped_links_get_no_queue():
    assert shape(make_plan(rate_bits_per_s=None), Methods()) == []


def test_both_ends_of_a_cable_are_shaped():
    plan = make_plan(num_hosts=1, rate_bits_per_s=10**9)
    fabric, host = shape(plan, Methods())
    assert fabric.argv == ("tc", "-n", plan.fabric, "-batch", "-")
    assert fabric.stdin == "qdisc add dev p1 root tbf rate 1gbit burst 1000000 latency 10ms\n"
    assert host.stdin == "qdisc add dev eth0 root tbf rate 1gbit burst 1000000 latency 10ms\n"


def test_netem_stands_in_front_of_the_token_bucket():
    plan = make_plan(num_hosts=1, delay_s=0.0002, loss=0.015)
    host = shape(plan, Methods(delay="netem", loss="netem"))[-1]
    first, second = host.stdin.splitlines()
    assert "root handle 1: netem delay 200us loss 1.5% limit" in first
    assert second.startswith("qdisc add dev eth0 parent 1:1 tbf rate 1gbit")


@pytest.mark.parametrize(("rate", "burst"), [(10**6, 16384), (10**8, 100_000), (10**10, 2**20)])
def test_buckets_hold_eight_milliseconds_within_bounds(rate, burst):
    assert f"burst {burst} " in network.tbf_arguments(rate)


def test_without_netem_the_fabric_filters_what_leaves_a_host():
    plan = make_plan(delay_s=0.001, loss=0.01)
    loss, delay = network.filter_all(plan, Methods(delay="nfqueue", loss="iptables"))
    for command in (loss, delay):
        assert command.argv[:2] == ("nsenter", f"--net=/run/netns/{plan.fabric}")
        assert command.argv[-len(command.argv) + 5 :][:3] == ("!", "-s", plan.operator_address)
    assert "0.010000" in loss.argv
    assert "NFQUEUE" in delay.argv


def test_plugged_ports_are_those_in_the_bridge():
    listing = json.dumps([{"ifname": "p1", "master": "br0"}, {"ifname": "p2"}, {}])
    assert network.plugged_ports(listing) == {"p1"}
    assert network.plugged_ports("") == frozenset()


def test_announced_packets_are_let_go_by_number():
    packet = struct.pack(">IHB", 0xA1B2C3D4, 0x0800, 0)
    body = delayer.attribute(1, packet)
    announced = delayer.message(0x300, body, 0) + delayer.message(0x300, body, 0)
    assert list(delayer.packet_numbers(announced)) == [0xA1B2C3D4] * 2
    assert delayer.verdict(0xA1B2C3D4).endswith(struct.pack(">II", 1, 0xA1B2C3D4))
    assert list(delayer.packet_numbers(b"\0" * 64)) == []


# Texts


def test_the_inventory_names_every_host_and_survives_odd_paths():
    paths = LabPaths(Path("/some where/it's: #1"))
    request = LabRequest(num_hosts=2, python="/x/bin/python")
    plan = plan_lab(request, paths, lab_id="a", subnet=0)
    inventory = yaml.safe_load(texts.inventory(plan, paths))
    assert inventory["defaults"]["key"] == str(paths.key)
    assert inventory["defaults"]["known_hosts"] == str(paths.known_hosts)
    assert inventory["hosts"]["tj2"] == {
        "ssh_host": "10.77.0.12",
        "port": 22,
        "address": "10.77.0.12",
    }


def test_known_hosts_hold_the_address_and_the_name():
    line = texts.known_hosts_line(make_plan().hosts[0], "ssh-ed25519 AAAA tj1\n")
    assert line == "10.77.7.11,tj1 ssh-ed25519 AAAA\n"


def test_root_is_unlocked_only_where_it_is_locked():
    assert texts.unlock_root("root:*:1:\n") is None
    assert texts.unlock_root("a:!:1:\nroot:!$6$x:1:\n") == "a:!:1:\nroot:*:1:\n"


# State


def make_state(plan: LabPlan) -> LabState:
    return LabState(
        created_at="2026-01-31T00:00:00+00:00",
        boot_id="boot",
        plan=plan,
        methods=Methods(delay="nfqueue"),
        freezer=Freezer(version=2, directory="/sys/fs/cgroup/tjlab-abc123"),
        hosts={"tj1": HostProcesses(launcher=LabProcessId(10, 100), init=LabProcessId(11, 101))},
        delayer=LabProcessId(12, 102),
    )


def test_the_state_survives_the_disk(tmp_path):
    paths = LabPaths(tmp_path)
    assert load_state(paths) is None
    state = make_state(make_plan(num_hosts=2, share=("/x",)))
    save_state(paths, state)
    assert load_state(paths) == state
    assert paths.state.stat().st_mode & 0o777 == 0o600
    assert [process.pid for process in state.processes()] == [11, 10, 12]


def test_a_state_that_cannot_be_read_is_not_taken_for_no_lab(tmp_path):
    paths = LabPaths(tmp_path)
    paths.state.write_text("{", encoding="utf-8")
    with pytest.raises(CleanupError, match="not the state of a lab"):
        load_state(paths)
    newer = msgspec.structs.replace(make_state(make_plan()), schema_version=99)
    save_state(paths, newer)
    with pytest.raises(CleanupError, match="another TianJi"):
        load_state(paths)


def test_without_a_lab_the_next_command_is_named(tmp_path):
    with pytest.raises(ConfigError) as caught:
        require_state(LabPaths(tmp_path))
    assert caught.value.fix.startswith("tianji lab up")


def test_after_a_restart_of_the_machine_only_files_are_left_to_remove(tmp_path):
    paths = LabPaths(tmp_path / "lab")
    paths.logs.mkdir(parents=True)
    own = LabProcessId.of(os.getpid())
    assert own is not None
    state = make_state(plan_lab(LabRequest(), paths, lab_id="abc123", subnet=7))
    state.hosts["tj1"] = HostProcesses(launcher=own, init=own)
    save_state(paths, state)
    assert take_down(paths) == state
    assert not paths.directory.exists()


def test_a_process_that_got_a_recorded_number_later_is_left_alone(tmp_path):
    paths = LabPaths(tmp_path / "lab")
    paths.directory.mkdir()
    own = LabProcessId.of(os.getpid())
    assert own is not None
    state = make_state(plan_lab(LabRequest(), paths, lab_id="abc123", subnet=7))
    state.boot_id, state.delayer, state.freezer = boot_id(), None, None
    older = msgspec.structs.replace(own, started=own.started - 1)
    state.hosts["tj1"] = HostProcesses(launcher=older, init=older)
    save_state(paths, state)
    (paths.directory / "note.txt").write_text("mine", encoding="utf-8")
    take_down(paths)
    assert [entry.name for entry in paths.directory.iterdir()] == ["note.txt"]


# Processes


def test_inhabitants_include_nested_namespaces_and_nobody_else():
    def row(pid: int, parent: int, namespace: str) -> ProcessRow:
        return ProcessRow(
            id=LabProcessId(pid, 1),
            parent=parent,
            inner_pid=1,
            pid_namespace=namespace,
            net_namespace="net",
            name="x",
            command="x",
        )

    table = [row(1, 0, "out"), row(5, 1, "in"), row(6, 1, "in"), row(7, 6, "nested")]
    assert {row.id.pid for row in inhabitants(LabProcessId(5, 1), table)} == {5, 6, 7}
    assert inhabitants(LabProcessId(5, 2), table) == []


# Refusals


def find_all(name: str) -> str | None:
    return f"/usr/bin/{name}"


def test_a_ready_machine_is_not_refused():
    check_machine(platform="linux", user_id=0, find=find_all)


def test_another_system_is_refused():
    with pytest.raises(PreflightError, match="needs Linux") as caught:
        check_machine(platform="darwin", user_id=0, find=find_all)
    assert caught.value.exit_code == 3


def test_an_ordinary_user_is_refused():
    with pytest.raises(PreflightError, match="needs root") as caught:
        check_machine(platform="linux", user_id=1000, find=find_all)
    assert "sudo" in caught.value.fix


def test_missing_programs_are_named_with_their_packages():
    with pytest.raises(PreflightError, match="missing programs: sshd, tc") as caught:
        check_machine(
            platform="linux",
            user_id=0,
            find=lambda name: None if name in ("sshd", "tc") else f"/usr/bin/{name}",
        )
    assert caught.value.fix.endswith("iproute2 openssh-server")


def test_a_directory_with_other_things_is_refused(tmp_path):
    check_directory(tmp_path)
    check_directory(tmp_path / "absent")
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(PreflightError, match="not empty"):
        check_directory(tmp_path)


def test_only_directories_that_exist_are_shared(tmp_path):
    check_shared((str(tmp_path),))
    with pytest.raises(ConfigError, match="no such directory"):
        check_shared((str(tmp_path / "absent"),))
