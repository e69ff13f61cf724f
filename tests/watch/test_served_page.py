"""The page as `tianji watch` serves it: to whom, what, and how it ends."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.helpers.running import run_tianji
from tests.helpers.synthetic_run import write_synthetic_run
from tests.helpers.watching import Served, served
from tianji_cli.commands.watching import watching
from tianji_cli.watch.app import static_files

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("watch") / "results"
    write_synthetic_run(results / "20260131-run", num_batches=20, has_summary=False)
    return results


@pytest.fixture(scope="module")
def page(results: Path) -> Iterator[Served]:
    with served(results) as found:
        yield found


def test_the_page_and_its_files(page):
    status, headers, body = page.get()
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
    assert b"<title>TianJi</title>" in body
    for name in static_files():
        if name != "index.html":
            status, headers, body = page.get(f"static/{name}")
            assert status == 200
            assert headers["content-type"].startswith("text/" if name[-3:] != "svg" else "image/")
            assert b"http:" not in body.replace(b"http://www.w3.org/", b"")
            assert b"https:" not in body


def test_only_who_knows_the_address_sees_anything(page):
    token = urlsplit(page.url).path.strip("/")
    for path in ("/", "/index.html", "/static/main.js", "/events", f"/{token[:-1]}/", "/x" * 500):
        status, headers, body = page.get(path)
        assert status == 403
        assert token.encode() not in body
        assert "default-src 'none'" in headers["content-security-policy"]
    status, headers, _ = page.get(f"/{token}")
    assert (status, headers["location"]) == (307, f"/{token}/")


def test_a_name_that_is_made_to_lead_here_is_refused(page):
    assert page.get("", host="evil.example:8000")[0] == 421
    assert page.get("", host="localhost:1")[0] == 200
    assert page.get("", method="POST")[0] == 405


def test_no_other_file_is_served(page, results):
    for path in (
        "static/../access.py",
        "static/%2e%2e/access.py",
        "static/..%2faccess.py",
        "static//etc/passwd",
        "static/index.html",
        "static/",
        "../20260131-run/manifest.json",
        "20260131-run/manifest.json",
        "results/20260131-run/manifest.json",
        "events/../../etc/passwd",
    ):
        status, _, body = page.get(path)
        assert status in (403, 404), path
        assert b"schema_version" not in body


def test_events_come(page):
    with page.events("?run=20260131-run&log=box%3C1%3E/actor-0.log") as events:
        kinds = {next(events)[0] for _ in range(4)}
    assert kinds == {"run", "logs"}


def test_it_listens_on_the_loopback_address_only(page):
    connections = psutil.Process(page.process.pid).net_connections()
    listening = [item.laddr.ip for item in connections if item.status == psutil.CONN_LISTEN]
    assert listening == ["127.0.0.1"]


def test_many_viewers_are_served_at_once(page):
    kinds: list[str] = []

    def view() -> None:
        with page.events() as events:
            kinds.append(next(events)[0])

    threads = [threading.Thread(target=view) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert kinds == ["runs"] * 12


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_it_at_once_and_well(results, name):
    import signal

    with served(results) as page, page.events("?run=20260131-run") as events:
        next(events)
        page.process.send_signal(getattr(signal, name))
        assert page.process.wait(20) == 0
        assert page.process.stderr is not None
        assert page.process.stderr.read() == ""


def test_the_address_begins_with_the_run_that_was_asked_for(results):
    with served(results, "2026") as page:
        assert page.url.endswith("/#run=20260131-run")
        assert page.end() == 0
    with served(results.parent, str(results / "20260131-run")) as page, page.events() as events:
        _, data = next(events)
        assert [row["run_id"] for row in data["runs"]] == ["20260131-run"]


def test_a_port_that_is_taken_is_told(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run_tianji(tmp_path, "watch", "--port", str(port))
    assert done.returncode == 2
    assert f"port {port} cannot be used" in done.stderr


def test_a_run_that_is_not_there_is_told(tmp_path):
    done = run_tianji(tmp_path, "watch", "none")
    assert done.returncode == 2
    assert "no such run" in done.stderr


def test_packages_that_are_missing_are_named(monkeypatch):
    import importlib.util

    from engine.errors import ConfigError

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="starlette and uvicorn") as found:
        watching.need_packages()
    assert "pip install" in found.value.fix


def test_the_command_loads_no_heavy_library():
    code = (
        "import sys, tianji_cli.watch.serve, tianji_cli.commands.watching.watching;"
        "print(*{'torch', 'pandas', 'matplotlib', 'gymnasium', 'paramiko'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""
