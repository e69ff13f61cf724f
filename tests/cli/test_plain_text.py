"""No text of a file or host steers the terminal, wherever it is printed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from engine.errors import RunFailedError
from tianji_cli.commands.logs import LogsRequest, logs_command
from tianji_cli.config.inventory import Host
from tianji_cli.output import Output
from tianji_cli.plain_text import PlainConsole, plain, plain_json
from tianji_cli.storage.deployment import Deployment, HostPart, write_deployment

EVIL = "a\x1b]0;owned\x07\x1b[2Jb\x9b31mc\x7f\r\x08\u202ed\u2066\udc80[/x][bold]e"


def steering(text: str) -> list[str]:
    return [c for c in text if plain(c) != c]


def test_what_steers_is_shown_instead() -> None:
    assert plain("a\x1b[31mb\n\tc\r") == "a\\x1b[31mb\n\tc\\r"
    assert plain("äß→😀") == "äß→😀"
    assert steering(plain(EVIL)) == []


def test_json_stays_the_same_document() -> None:
    text = EVIL.replace("\udc80", "") + "äß→😀"
    data = json.dumps({"a": text}, ensure_ascii=False).encode()
    assert json.loads(plain_json(data)) == {"a": text}
    assert steering(plain_json(data).decode()) == []


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_console_passes_nothing_on_in_whatever_it_is_wrapped(*, is_terminal: bool) -> None:
    table = Table(EVIL, title=EVIL)
    table.add_row(EVIL)
    for item in (EVIL, Text(EVIL), Text(EVIL, style="red"), table, Panel(EVIL)):
        stream = io.StringIO()
        console = PlainConsole(
            file=stream, force_terminal=is_terminal, color_system="standard", markup=False
        )
        console.print(item, soft_wrap=isinstance(item, (str, Text)))
        shown = stream.getvalue()
        assert "owned" in shown
        for code in ("\x1b]", "\x1b[2J", "\x9b", "\x07", "\u202e", "\udc80", "\r", "\x08"):
            assert code not in shown, item


def test_a_live_display_passes_nothing_on() -> None:
    stream = io.StringIO()
    console = PlainConsole(file=stream, force_terminal=True, markup=False)
    with Live(Text(EVIL), console=console, auto_refresh=False) as live:
        live.update(Text(f"{EVIL} again"), refresh=True)
    shown = stream.getvalue()
    assert "again" in shown
    for code in ("\x1b]", "\x9b", "\x07", "\u202e", "\udc80"):
        assert code not in shown


def test_errors_and_notes_pass_nothing_on(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.say(EVIL)
    output.error(RunFailedError(EVIL, where=EVIL, fix=EVIL))
    output.data.print(Table(EVIL))
    output.document({"a": EVIL.replace("\udc80", "")})
    captured = capsys.readouterr()
    assert captured.err.count("owned") == 4
    assert steering(captured.err + captured.out) == []


def test_logs_pass_nothing_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host = Host(name="localhost", connection="local", address="127.0.0.1", ports=None)
    part = HostPart(host=host, python="python3", source="/s", run_dir="/w/runs/r")
    log = tmp_path / "r" / "logs" / "localhost" / "actor-0\x1b[2J.log"
    log.parent.mkdir(parents=True)
    log.write_text(EVIL.replace("\udc80", "").replace("\r", "") + "\n", encoding="utf-8")
    (tmp_path / "r" / "manifest.json").write_text("{}")
    deployment = Deployment(run_id="r", is_collected=True, parts=(part,))
    write_deployment(tmp_path / "r", deployment)
    assert logs_command(tmp_path, LogsRequest("r", None, False, 9), Output()) == 0
    shown = capsys.readouterr().out
    assert "owned" in shown
    assert steering(shown) == []
