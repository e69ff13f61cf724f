"""Do hosts reach each other, and can a host be equipped? Asked before anything begins."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from engine.errors import PreflightError
from tests.helpers.fake_node import FakeNode, facts
from tests.helpers.ipv6 import needs_ipv6
from tests.helpers.ports import find_free_ports
from tianji_cli.commands.check import check_command, shown
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.base import Completed
from tianji_cli.connectors.local import LocalNode
from tianji_cli.output import Output
from tianji_cli.provisioning.findings import Finding, complete
from tianji_cli.provisioning.preflight import host_findings
from tianji_cli.provisioning.probe import probe_command
from tianji_cli.provisioning.reachability import Reachable, check_ports, require_ways


def free_range(address: str, count: int = 8) -> tuple[int, int]:
    first = find_free_ports(address, range(20000, 60000), count)[0]
    return first, first + 200


def hosts_at(**addresses: str) -> dict[str, Reachable]:
    return {
        name: Reachable(
            LocalNode(name),
            Host(name=name, connection="local", address=at, ports=free_range(at)),
            sys.executable,
        )
        for name, at in addresses.items()
    }


@pytest.mark.parametrize("address", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_ways_are_tried_in_both_families(address: str) -> None:
    hosts = hosts_at(a=address, b=address)
    findings = check_ports(hosts, 2)
    assert {finding.verdict for finding in findings.values()} == {"ok"}, findings
    if address == "::1":
        assert findings["a"].detail.startswith("[::1]:")
    require_ways(hosts, {"a": ["b"], "b": ["a"]})


def test_an_address_that_leads_elsewhere_is_found_out() -> None:
    """As when each of two hosts is reached by a forwarded port, and so both are 127.0.0.1."""
    port = free_range("127.0.0.1")[0]
    code = f"import socket, sys; s = socket.create_server(('127.0.0.1', {port}))\n"
    code += "print('up', flush=True)\nwhile True: s.accept()[0].sendall(b'somebody')"
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        command = probe_command(sys.executable, "reach", f"127.0.0.1:{port}=b")
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        other.kill()
    assert "another host or program" in json.loads(done.stdout)[f"127.0.0.1:{port}=b"]


class WalledNode(LocalNode):
    """Whose connections to others are refused: its names lead nowhere."""

    def run(self, command: Sequence[str], timeout_s: float) -> Completed:
        items = [word for word in command if "=" in word and "\n" not in word]
        answers = dict.fromkeys(items, "[Errno 111] Connection refused")
        return Completed(0, json.dumps(answers), "")


def test_a_closed_way_is_said_with_both_ends_before_a_run() -> None:
    hosts = hosts_at(head="127.0.0.1", far="127.0.0.1")
    walled = Reachable(WalledNode("far"), hosts["far"].host, sys.executable)
    with pytest.raises(PreflightError) as caught:
        require_ways({**hosts, "far": walled}, {"far": ["head"]})
    assert "far cannot connect to head at 127.0.0.1:" in caught.value.what
    assert "Connection refused" in caught.value.what
    assert "firewall" in caught.value.fix
    require_ways({**hosts, "far": walled}, {"head": ["far"]})


def test_an_address_that_no_network_here_has_is_said_before_a_run() -> None:
    hosts = hosts_at(a="127.0.0.1", b="127.0.0.1")
    host = msgspec.structs.replace(hosts["b"].host, address="192.0.2.77")
    hosts["b"] = Reachable(hosts["b"].node, host, sys.executable)
    with pytest.raises(PreflightError, match=r"cannot listen at 192\.0\.2\.77"):
        require_ways(hosts, {"a": ["b"]})


class Lacking(FakeNode):
    """A host without torch."""

    def __init__(self, answer: str) -> None:
        host = Host(name="a", connection="ssh", ssh_host="a", address="192.0.2.9", ports=None)
        packages = {**dict.fromkeys(facts()["packages"], "1.0"), "torch": None}  # type: ignore[call-overload]
        super().__init__(host, {"python3": facts(packages=packages)})
        self.answer = answer
        self.host = host

    def run(self, command: Sequence[str], timeout_s: float) -> Completed:
        if "index" in command:
            return Completed(0, self.answer, "")
        return super().run(command, timeout_s)


def versions_of(node: Lacking) -> Finding:
    findings, _ = host_findings(node, node.host)
    return next(finding for finding in findings if finding.probe == "versions")


def test_a_host_that_can_get_no_packages_is_not_ready() -> None:
    found = versions_of(Lacking('{"torch==2": "ERROR: no route to pypi.org"}'))
    assert found.verdict == "failed"
    assert "lacks torch" in found.detail
    assert "no route to pypi.org" in found.detail
    assert "python:" in found.fix
    assert versions_of(Lacking('{"torch==2": ""}')).verdict == "warning"


def test_the_index_is_asked_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of wheels is an index, too; what is not in it cannot be got."""
    name = "thing-1.0-py3-none-any.whl"
    (tmp_path / name).write_bytes(b"")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    wanted = ["thing==1.0", "thing==2.0", "missing==1.0"]
    done = subprocess.run(
        probe_command(sys.executable, "index", *wanted), capture_output=True, check=False, text=True
    )
    answers = json.loads(done.stdout)
    assert answers["thing==1.0"] == "", done.stderr
    assert answers["thing==2.0"] == "it has no thing==2.0"
    assert answers["missing==1.0"]


def test_a_dead_host_is_one_row_and_a_broken_one_says_the_rest_at_once() -> None:
    dead = complete([Finding(probe="ssh", verdict="failed", detail="no answer", fix="try")], "ssh")
    assert len(dead) == 11, "the document has all of them"
    assert [finding.probe for finding in shown(dead)] == ["ssh"]
    broken = complete(
        [
            Finding(probe="ssh", verdict="ok", detail=""),
            Finding(probe="host key", verdict="ok", detail=""),
            Finding(probe="python", verdict="failed", detail="none"),
        ],
        "ssh",
    )
    assert [finding.probe for finding in shown(broken)] == ["ssh", "host key", "python", "the rest"]
    assert "versions" in shown(broken)[-1].detail


def test_check_names_a_missing_key_file_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    inventory = tmp_path / "hosts.yaml"
    inventory.write_text(f"version: 1\nhosts:\n  box: {{key: {tmp_path}/no-key}}\n")
    assert check_command(str(inventory), [], Output()) == 3
    rows = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert f"there is no such key file: {tmp_path}/no-key" in " ".join(rows)
    assert len([row for row in rows if "could not be asked" in row]) == 0
