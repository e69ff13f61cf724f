"""Runs for tests of the live page: manifests, rows that are appended, and a page that is served."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from tests.helpers.paths import REPOSITORY
from tianji_cli.analysis.run import ManifestView
from tianji_cli.storage.run_dir import RunPaths


def manifest_of_run(hosts: Mapping[str, Sequence[str]], policy: str = "tianji") -> ManifestView:
    """A manifest of a run whose roles are each a process.

    Args:
        hosts: By host, the roles on it.
        policy: The distribution policy.
    """
    return ManifestView(
        {
            "schema_version": 1,
            "experiment": {
                "name": "cartpole_ppo",
                "seed": 1,
                "policy": policy,
                "env": {"id": "CartPole-v1"},
                "algorithm": {"name": "ppo"},
                "staleness": {"mode": "block", "max_lag": 1},
                "stop": {"return_threshold": 450.0, "env_steps": 1000, "return_window": 100},
            },
            "processes": {
                role: {"host": host, "roles": [role], "device": "cpu"}
                for host, roles in hosts.items()
                for role in roles
            },
            "hosts": {
                host: {"cpu_model": "Example", "num_cores": 4, "memory_bytes": 2**33, "gpus": []}
                for host in hosts
            },
            "started_at": "2026-01-31T23:59:59Z",
        }
    )


def write_manifest(root: Path, manifest: ManifestView) -> RunPaths:
    """Writes a run of which nothing has been traced yet."""
    paths = RunPaths(root)
    paths.trace.mkdir(parents=True)
    paths.manifest.write_bytes(msgspec.json.encode(manifest.data))
    return paths


@dataclass
class Served:
    """A running `tianji watch`."""

    process: subprocess.Popen[str]
    url: str

    def get(
        self, path: str = "", *, method: str = "GET", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Asks for a path relative to the page's address, or an absolute one.

        Returns:
            Status, headers by lower-case name, body.
        """
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
        with contextlib.closing(connection):
            wanted = path if path.startswith("/") else parts.path + path
            connection.putrequest(method, wanted, skip_host="host" in headers)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read()

    @contextlib.contextmanager
    def events(self, query: str = "") -> Iterator[Iterator[tuple[str, dict[str, object]]]]:
        """The stream of events: kinds and documents."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", f"{parts.path}events{query}")
            answer = connection.getresponse()
            assert answer.status == 200
            yield _events_of(answer)

    def end(self, timeout_s: float = 30.0) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout_s)


def _events_of(answer: http.client.HTTPResponse) -> Iterator[tuple[str, dict[str, object]]]:
    kind = ""
    while line := answer.readline():
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)


@contextlib.contextmanager
def served(results: Path, *arguments: str) -> Iterator[Served]:
    """A page of a results directory, by the real command."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tianji_cli.main", "watch", *arguments),
            *("--json", "--results", str(results)),
        ],
        cwd=results.parent,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            text += line
        yield Served(process, json.loads(text)["url"])
    finally:
        process.kill()
        process.communicate()
