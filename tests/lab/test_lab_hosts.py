"""Real hosts, seen from outside by ssh and TCP, and what is left when they are gone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.errors import CleanupError, ConfigError, PreflightError
from engine.host.process_identity import is_alive
from tianji_cli.lab import Lab, cgroups, hosts, teardown
from tianji_cli.lab.build import build
from tianji_cli.lab.plan import LabPlan, LabRequest
from tianji_cli.lab.preflight import check_machine, check_namespaces
from tianji_cli.lab.processes import read_table
from tianji_cli.lab.state import LabState, load_state
from tianji_cli.lab.system import mount_points
from tianji_cli.lab.teardown import residents

pytestmark = pytest.mark.lab

DEADLINE_S = 15.0
SILENCE_S = 0.5
RATE_BITS_PER_S = 100_000_000
PROBE_BYTES = 4 * 2**20


@pytest.fixture(scope="session")
def machine() -> None:
    try:
        check_machine()
        check_namespaces()
    except PreflightError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def lab(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("lab")
    with Lab.up(hosts=3, rate="100mbit", directory=directory) as lab:
        yield lab


def ssh_words(lab: Lab, host: str) -> list[str]:
    options = (
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={lab.paths.known_hosts}",
        "GlobalKnownHostsFile=/dev/null",
        "BatchMode=yes",
        "ConnectTimeout=5",
    )
    flags = [word for option in options for word in ("-o", option)]
    address = lab.load().plan.host(host).address
    return ["ssh", "-F", "none", "-i", str(lab.paths.key), *flags, f"root@{address}"]


def ssh(lab: Lab, host: str, command: str) -> str:
    done = subprocess.run(
        [*ssh_words(lab, host), command],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def connect(lab: Lab, host: str) -> socket.socket:
    """A TCP connection to a host's sshd."""
    plan = lab.load().plan.host(host)
    return socket.create_connection((plan.address, plan.ssh_port), timeout=SILENCE_S)


def wait_until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.01)


# What a host is


def test_every_host_is_reached_with_strict_host_keys_and_is_itself(lab: Lab):
    names = [host.name for host in lab.hosts]
    assert [ssh(lab, name, "hostname") for name in names] == names
    keys = {line.split()[2] for line in lab.paths.known_hosts.read_text().splitlines()}
    assert len(keys) == len(names)


def test_a_wrong_host_key_is_noticed(lab: Lab, tmp_path: Path):
    first, second = (line.split() for line in lab.paths.known_hosts.read_text().splitlines()[:2])
    swapped = tmp_path / "known_hosts"
    swapped.write_text(" ".join([first[0], *second[1:]]) + "\n")
    words = [
        word if "UserKnown" not in word else f"UserKnownHostsFile={swapped}"
        for word in ssh_words(lab, "tj1")
    ]
    done = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
    assert done.returncode == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr


def test_hosts_have_their_own_processes_files_and_memory(lab: Lab):
    assert ssh(lab, "tj1", "cat /proc/1/comm") == "sshd"
    for place in ("/tmp/mine", "/run/mine", "/dev/shm/mine", "/root/mine", "/opt/mine"):
        ssh(lab, "tj1", f"touch {place}")
        assert ssh(lab, "tj2", f"ls {place} 2>/dev/null || echo none") == "none"
        assert not Path(place).exists()


def test_hosts_have_empty_homes_and_the_interpreter(lab: Lab):
    assert ssh(lab, "tj3", "ls -A ~ | grep -v pyenv || true") == ""
    python = next(
        line.split(maxsplit=1)[1].strip('"')
        for line in lab.inventory.read_text().splitlines()
        if line.startswith("  python:")
    )
    program = "import msgspec, sys; print(sys.prefix)"
    assert ssh(lab, "tj3", f"{python} -c '{program}'") == sys.prefix
    assert not Path(ssh(lab, "tj3", "mktemp")).exists()


def test_hosts_have_their_own_clock_origins(lab: Lab):
    if not lab.load().has_clocks:
        pytest.skip("no time namespaces here")
    uptimes_s = [float(ssh(lab, name, "cat /proc/uptime").split()[0]) for name in ("tj1", "tj2")]
    assert uptimes_s[1] - uptimes_s[0] > 5_000


def test_hosts_reach_each_other_and_know_their_names(lab: Lab):
    program = "import socket; print(socket.create_connection(('tj3', 22), 5).recv(4).decode())"
    assert lab.exec("tj2", [sys.executable, "-c", program]).stdout.strip() == "SSH-"


def test_links_are_as_slow_as_asked(lab: Lab):
    program = (
        "import socket, sys\n"
        "with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as peer:\n"
        f"    peer.sendall(bytes({PROBE_BYTES}))\n"
    )
    with socket.create_server((lab.load().plan.operator_address, 0)) as server:
        server.settimeout(DEADLINE_S)
        address, port = server.getsockname()
        words = [*ssh_words(lab, "tj1"), f"{sys.executable} - {address} {port}"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, text=True) as sender:
            assert sender.stdin is not None
            sender.stdin.write(program)
            sender.stdin.close()
            peer = server.accept()[0]
            with peer:
                start_s = time.monotonic()
                received = 0
                while data := peer.recv(2**20):
                    received += len(data)
                took_s = time.monotonic() - start_s
    assert received == PROBE_BYTES
    assert 0.3 * RATE_BITS_PER_S < received * 8 / took_s < 1.3 * RATE_BITS_PER_S


def test_processes_are_counted_as_the_host_numbers_them(lab: Lab):
    before = lab.processes("tj2")
    pid = int(ssh(lab, "tj2", "setsid sleep 321 >/dev/null 2>&1 & echo $!"))
    nested = ["unshare", "--pid", "--fork", "sh", "-c", "sleep 654 >/dev/null 2>&1 &"]
    lab.exec("tj2", nested)
    assert (pid, "sleep 321") in lab.processes("tj2")
    assert [row.num_processes for row in lab.status()][1] == len(lab.processes("tj2"))
    assert not any("sleep" in command for _, command in lab.processes("tj1"))
    ssh(lab, "tj2", f"kill {pid}")
    wait_until(lambda: (pid, "sleep 321") not in lab.processes("tj2"))
    assert before == []


# What can happen to it


def test_killed_hosts_say_goodbye_lose_all_processes_and_come_back(lab: Lab):
    ssh(lab, "tj1", "echo kept >/root/kept; echo lost >/tmp/lost")
    ssh(lab, "tj1", "setsid sh -c 'trap \"\" TERM HUP; sleep 987' >/dev/null 2>&1 &")
    wait_until(lambda: any("sleep 987" in command for _, command in lab.processes("tj1")))
    inside = [row.id for row in read_table() if "sleep 987" in row.command]
    assert inside
    with connect(lab, "tj1") as peer:
        assert peer.recv(4) == b"SSH-"
        lab.kill("tj1")
        lab.kill("tj1")  # twice is once
        with pytest.raises(ConnectionRefusedError):
            connect(lab, "tj1")
        while True:
            try:
                if not peer.recv(4096):
                    break
            except ConnectionResetError:
                break
    assert lab.processes("tj1") == []
    assert not any(is_alive(process) for process in inside)
    assert lab.status()[0].state == "dead"
    with pytest.raises(ConfigError, match="dead"):
        lab.exec("tj1", ["true"])
    lab.start("tj1")
    assert ssh(lab, "tj1", "cat /root/kept; ls /tmp/lost 2>/dev/null || echo none") == "kept\nnone"
    assert lab.status()[0].state == "up"


def test_cut_hosts_are_silent_and_connections_survive_until_healed(lab: Lab):
    with subprocess.Popen(
        [*ssh_words(lab, "tj2"), "exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as cat:
        assert cat.stdin is not None
        assert cat.stdout is not None
        cat.stdin.write(b"one\n")
        cat.stdin.flush()
        assert cat.stdout.readline() == b"one\n"
        lab.cut("tj2")
        try:
            cat.stdin.write(b"two\n")
            cat.stdin.flush()
            with pytest.raises(TimeoutError):
                connect(lab, "tj2")
            assert cat.poll() is None
            assert lab.status()[1].state == "cut"
            assert lab.status()[2].state == "up"
        finally:
            lab.heal("tj2")
        assert cat.stdout.readline() == b"two\n"
        cat.stdin.close()
        assert cat.wait(DEADLINE_S) == 0
    assert lab.status()[1].state == "up"


def test_hosts_without_power_are_silent_and_know_nobody_when_it_returns(lab: Lab):
    with connect(lab, "tj1") as peer:
        peer.recv(4096)
        lab.crash("tj1")
        lab.crash("tj1")  # twice is once
        with pytest.raises(TimeoutError):
            peer.recv(1)
        assert lab.status()[0].state == "dead"
        with pytest.raises(ConfigError, match="no power"):
            lab.heal("tj1")
        lab.start("tj1")
        assert ssh(lab, "tj1", "hostname") == "tj1"
        peer.settimeout(DEADLINE_S)
        peer.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
    assert lab.status()[0].state == "up"


def test_a_cut_host_starts_again_and_stays_cut(lab: Lab):
    lab.cut("tj2")
    lab.kill("tj2")
    assert (lab.status()[1].state, lab.status()[1].is_cut) == ("dead", True)
    lab.start("tj2")
    assert lab.status()[1].state == "cut"
    lab.heal("tj2")
    assert ssh(lab, "tj2", "hostname") == "tj2"


@pytest.mark.parametrize("is_killed", [False, True])
def test_frozen_hosts_accept_and_do_not_answer(lab: Lab, is_killed: bool):
    if lab.load().freezer is None:
        pytest.skip("no freezer control group can be made here")
    lab.freeze("tj3")
    with connect(lab, "tj3") as peer:
        with pytest.raises(TimeoutError):
            peer.recv(4)
        assert lab.status()[2].state == "frozen"
        if is_killed:
            lab.kill("tj3")
            lab.start("tj3")
        else:
            lab.thaw("tj3")
            peer.settimeout(DEADLINE_S)
            assert peer.recv(4) == b"SSH-"
    assert ssh(lab, "tj3", "hostname") == "tj3"


def test_full_disks_refuse_what_is_written_and_only_theirs(lab: Lab):
    ssh(lab, "tj1", "echo before >/root/before")
    lab.fill("tj1")
    assert [row.is_full for row in lab.status()] == [True, False, False]
    write = "dd if=/dev/zero of=/root/more bs=64k count=4 2>&1 || true"
    assert "No space left on device" in ssh(lab, "tj1", write)
    assert ssh(lab, "tj1", "cat /root/before; echo still >/tmp/still; cat /tmp/still") == (
        "before\nstill"
    )
    assert "No space left" not in ssh(lab, "tj2", write)
    lab.free("tj1")
    assert "No space left" not in ssh(lab, "tj1", write)
    lab.fill("tj1", leave="1mib")
    assert not lab.status()[0].is_full
    fill_up = "dd if=/dev/zero of=/root/most bs=64k count=64 2>/dev/null; wc -c </root/most"
    assert 2**20 - 2**16 <= int(ssh(lab, "tj1", fill_up)) <= 2**20
    assert lab.status()[0].is_full
    ssh(lab, "tj1", "rm /root/most /root/more")
    lab.free("tj1")


def test_a_host_whose_disk_is_full_can_be_killed_and_started(lab: Lab):
    lab.fill("tj2")
    lab.kill("tj2")
    lab.start("tj2")
    assert ssh(lab, "tj2", "hostname") == "tj2"
    assert lab.status()[1].is_full
    lab.free("tj2")
    assert not lab.status()[1].is_full


# What is left


def traces(state: LabState) -> dict[str, list[str]]:
    """Everything on this machine that bears the lab's random id, or that it recorded."""
    plan, freezer = state.plan, state.freezer
    links = Path("/sys/class/net").glob("*/ifalias")
    return {
        "netns": [str(path) for path in Path("/run/netns").glob(f"*{plan.lab_id}*")],
        "links": [str(path) for path in links if plan.lab_id in path.read_text()],
        "mounts": [point for point in mount_points() if point.startswith(plan.directory)],
        "processes": [str(process.pid) for process in residents(state)],
        "sshd": [str(row.id.pid) for row in read_table() if plan.directory in row.command],
        "groups": [freezer.directory] if freezer and Path(freezer.directory).exists() else [],
        "files": [plan.directory] if Path(plan.directory).exists() else [],
    }


def test_nothing_is_left_and_it_works_twice(machine: None, tmp_path: Path):
    for _ in range(2):
        lab = Lab.up(hosts=2, directory=tmp_path / "lab")
        state = lab.load()
        ssh(lab, "tj1", "setsid sleep 333 >/dev/null 2>&1 &")
        residents_then = residents(state)
        assert all(found or name == "groups" for name, found in traces(state).items())
        lab.down()
        assert not any(traces(state).values())
        assert not any(is_alive(process) for process in residents_then)
        lab.down()


def test_a_second_lab_in_the_same_place_is_refused_and_elsewhere_is_not(lab: Lab, tmp_path: Path):
    with pytest.raises(ConfigError, match="a lab of 3 hosts is running here") as caught:
        Lab.up(hosts=1, directory=lab.paths.directory)
    assert caught.value.exit_code == 2
    with Lab.up(hosts=1, directory=tmp_path / "other") as other:
        assert other.hosts[0].address != lab.hosts[0].address
        assert ssh(other, "tj1", "hostname") == "tj1"
    assert ssh(lab, "tj1", "hostname") == "tj1"


def test_a_host_that_does_not_come_up_leaves_nothing(
    machine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[LabPlan] = []
    launch = hosts.launch

    def spying(state: LabState, *arguments) -> None:
        seen.append(state.plan)
        launch(state, *arguments)

    found = hosts.require_program
    monkeypatch.setattr(hosts, "launch", spying)
    monkeypatch.setattr(
        hosts, "require_program", lambda name: "/nowhere/sshd" if name == "sshd" else found(name)
    )
    with pytest.raises(PreflightError, match="/nowhere/sshd") as caught:
        build(LabRequest(num_hosts=2), tmp_path / "lab")
    assert caught.value.where == "tj1"
    assert len(seen) == 2
    assert not list(Path("/run/netns").glob(f"*{seen[0].lab_id}*"))
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize("is_host_started", [False, True])
def test_a_lab_whose_command_was_killed_is_taken_down_later(
    machine: None, tmp_path: Path, is_host_started: bool
):
    directory = tmp_path / "lab"
    words = [sys.executable, "-m", "tianji_cli.main", "lab"]
    command = subprocess.Popen(
        [*words, "up", "--hosts", "8", "--delay", "1ms", "--dir", str(directory)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    state_file = directory / "state.json"
    wait_until(state_file.exists)
    if is_host_started:
        wait_until(lambda: len(json.loads(state_file.read_bytes())["hosts"]) > 3)
    os.kill(command.pid, signal.SIGKILL)
    command.wait()
    lab = Lab(directory)
    state = lab.load()
    assert state.status == "starting"
    ended = subprocess.run([*words, "down", "--dir", str(directory)], check=False)
    assert ended.returncode == 0
    assert not any(traces(state).values())


def test_what_cannot_be_removed_is_named_and_kept_for_another_try(
    machine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(teardown, "UNMOUNT_TIMEOUT_S", 0.1)
    lab = Lab.up(hosts=1, directory=tmp_path / "lab")
    state = lab.load()
    busy = lab.paths.disks / "tj1/upper/etc/hostname"
    with busy.open(), pytest.raises(CleanupError, match=f"mounts: {state.plan.disks}") as caught:
        lab.down()
    assert caught.value.exit_code == 7
    assert lab.load() == state
    lab.down()
    assert not any(traces(state).values())


def test_commands_answer_with_documents_and_exit_codes(lab: Lab):
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        place = ("--dir", str(lab.paths.directory))
        return subprocess.run(
            [sys.executable, "-m", "tianji_cli.main", "lab", *words, *place],
            capture_output=True,
            text=True,
            check=False,
        )

    table = command("status")
    assert table.stdout.split()[:2] == ["host", "address"]
    assert str(lab.inventory) in table.stderr
    document = json.loads(command("cut", "tj3", "--json").stdout)
    assert document["schema_version"] == 1
    assert document["hosts"][2] == {
        "name": "tj3",
        "address": lab.hosts[2].address,
        "ssh_port": 22,
        "state": "cut",
        "is_cut": True,
        "is_full": False,
        "num_processes": 0,
    }
    healed = command("heal", "tj3")
    assert (healed.returncode, healed.stdout) == (0, "")
    assert command("up").returncode == 2
    unknown = command("kill", "tj4")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "no such host" in unknown.stderr


def test_version_1_control_groups_freeze_too(
    machine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = cgroups._mounts
    monkeypatch.setattr(cgroups, "_mounts", lambda *a: [m for m in found(*a) if m[0] == 1])
    with Lab.up(hosts=1, directory=tmp_path / "lab") as lab:
        if lab.load().freezer is None:
            pytest.skip("no version 1 freezer here")
        lab.freeze("tj1")
        assert lab.status()[0].state == "frozen"
        lab.kill("tj1")
        assert lab.status()[0].state == "dead"
        lab.start("tj1")
        lab.freeze("tj1")
        state = lab.load()
    assert not any(traces(state).values())


def test_delay_and_loss_are_felt_or_said_to_be_unavailable(machine: None, tmp_path: Path):
    with Lab.up(hosts=2, delay="20ms", loss="0.1", directory=tmp_path / "lab") as lab:
        methods = lab.load().methods
        assert methods.loss != "off"
        if methods.delay == "unavailable":
            pytest.skip("neither netem nor netfilter queues here")
        program = (
            "import socket, time\n"
            "start_s = time.monotonic()\n"
            "socket.create_connection(('tj2', 22), 5).close()\n"
            "print(time.monotonic() - start_s)\n"
        )
        rtts_s = [float(lab.exec("tj1", [sys.executable, "-c", program]).stdout) for _ in range(3)]
        assert 0.04 <= min(rtts_s) < 0.2


def test_the_inventory_goes_with_the_lab(machine: None, tmp_path: Path):
    with Lab.up(hosts=1, directory=tmp_path / "lab", hide=[Path("/usr/share/doc")]) as lab:
        assert load_state(lab.paths) is not None
        assert lab.inventory.is_file()
        assert lab.paths.key.stat().st_mode & 0o777 == 0o600
        assert lab.paths.directory.stat().st_mode & 0o777 == 0o700
        assert lab.exec("tj1", ["ls", "/usr/share/doc"]).returncode != 0
    assert not lab.inventory.exists()
