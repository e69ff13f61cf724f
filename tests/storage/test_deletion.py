"""`tianji runs --delete` removes a run's own files, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import CleanupError, ConfigError
from engine.host.process_identity import RUN_VARIABLE, mark
from tests.helpers.paths import REPOSITORY
from tests.helpers.synthetic_run import write_synthetic_run
from tianji_cli.commands import runs_delete
from tianji_cli.commands.runs_delete import delete_command
from tianji_cli.config.inventory import Host
from tianji_cli.output import Output
from tianji_cli.storage import deletion
from tianji_cli.storage.deployment import DEPLOYMENT_NAME, Deployment, HostPart, write_deployment
from tianji_cli.storage.ownership import STATE_VARIABLE
from tianji_cli.storage.run_dir import RunPaths, is_of_run


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    return write_synthetic_run(tmp_path / "results" / "one", num_batches=4)


def remove(results: Path, *names: str, output: Output | None = None) -> None:
    delete_command(results, names, output or Output(), is_agreed=True)


def everything(place: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(place)): path.read_bytes() if path.is_file() else None
        for path in sorted(place.rglob("*"))
    }


def refused(results: Path, *names: str) -> ConfigError:
    """The error; nothing was removed."""
    before = everything(results)
    with pytest.raises(ConfigError) as caught:
        remove(results, *names)
    assert everything(results) == before
    return caught.value


def test_all_of_a_run_is_gone_and_its_bytes_are_told(
    run: RunPaths, capsys: pytest.CaptureFixture[str]
):
    (run.root / "evaluations").mkdir()
    (run.root / "evaluations" / "v10.json").write_text("{}")
    (run.root / ".summary.json.ab12.tmp").write_text("torn")
    size = sum(path.stat().st_size for path in run.root.rglob("*") if path.is_file())
    other = write_synthetic_run(run.root.parent / "two", num_batches=4)
    before = everything(other.root)
    remove(run.root.parent, "one", output=Output(is_json=True))
    document = json.loads(capsys.readouterr().out)
    assert not run.root.exists()
    assert document["freed_bytes"] == document["deleted"][0]["freed_bytes"] == size
    assert document["deleted"][0]["run_id"] == "one"
    assert everything(other.root) == before


def test_links_are_removed_as_links(run: RunPaths, tmp_path: Path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    shutil.rmtree(run.checkpoints)
    run.checkpoints.symlink_to(precious)
    (run.logs / "deep").symlink_to(precious)
    (run.trace / "more.jsonl").symlink_to(precious / "file")
    (run.trace / "events.jsonl").unlink()
    (run.trace / "events.jsonl").symlink_to(tmp_path / "nowhere")
    remove(run.root.parent, "one")
    assert not run.root.exists()
    assert everything(precious) == {"file": b"kept"}


def test_a_file_with_another_name_elsewhere_frees_nothing(
    run: RunPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    os.link(run.trace / "production.jsonl", tmp_path / "mine")
    os.link(run.trace / "episodes.jsonl", run.trace / "twice.jsonl")
    sizes = {path.stat().st_ino: path.stat() for path in run.root.rglob("*") if path.is_file()}
    wanted = sum(status.st_size for status in sizes.values())
    wanted -= (tmp_path / "mine").stat().st_size
    remove(run.root.parent, "one", output=Output(is_json=True))
    assert json.loads(capsys.readouterr().out)["freed_bytes"] == wanted
    assert (tmp_path / "mine").stat().st_size > 0


def test_files_of_the_user_stay_and_are_named(run: RunPaths, capsys: pytest.CaptureFixture[str]):
    (run.root / "notes.md").write_text("a good one")
    (run.root / "mine").mkdir()
    (run.root / "mine" / "x").write_text("y")
    remove(run.root.parent, "one")
    assert everything(run.root) == {"mine": None, "mine/x": b"y", "notes.md": b"a good one"}
    assert "kept: mine, notes.md" in capsys.readouterr().err


def test_every_file_that_a_run_can_have_is_its_own():
    paths = RunPaths(Path("run"))
    names = [name for name, kind in vars(RunPaths).items() if isinstance(kind, property)]
    places = [place for name in names if isinstance(place := getattr(paths, name), Path)]
    assert len(places) >= 8
    assert [place.name for place in places if not is_of_run(place.name)] == []
    page = (REPOSITORY / "docs" / "results-format.md").read_text(encoding="utf-8")
    tree = page.partition("cartpole_ppo/\n")[2].partition("```")[0]
    named = {word.partition("/")[0] for line in tree.splitlines() for word in _names_in(line)}
    assert len(named) >= 11
    assert [name for name in named if not is_of_run(name)] == []


def _names_in(line: str) -> list[str]:
    """The names at the beginning of a line, before what is said of them."""
    return line.strip().partition("  ")[0].split(", ")


def test_sockets_and_pipes_in_it_do_not_stop_it(run: RunPaths):
    os.mkfifo(run.logs / "pipe")
    remove(run.root.parent, "one")
    assert not run.root.exists()


def test_a_link_to_a_run_is_refused_by_any_name(run: RunPaths, monkeypatch: pytest.MonkeyPatch):
    results = run.root.parent
    (results / "link").symlink_to(run.root)
    for name in ("link", str(results / "link"), f"{results / 'link'}/"):
        assert "is a link" in refused(results, name).what
    monkeypatch.chdir(results)
    assert "is a link" in refused(results, "link").what


def test_a_run_with_a_link_for_its_manifest_is_refused(run: RunPaths, tmp_path: Path):
    run.manifest.rename(tmp_path / "manifest.json")
    run.manifest.symlink_to(tmp_path / "manifest.json")
    assert "is a link" in refused(run.root.parent, "one").what


@pytest.mark.parametrize("content", ["{}", '{"name": "an app"}', "[]", '{"run_id": "x"}', "torn {"])
def test_what_is_no_run_is_refused(run: RunPaths, content: str):
    run.manifest.write_text(content)
    refused(run.root.parent, "one")
    refused(run.root.parent, str(run.root))


@pytest.mark.parametrize("kind", ["study", "bench", "scaling", "transport"])
def test_studies_and_benchmarks_are_refused(run: RunPaths, kind: str):
    (run.root / f"{kind}.json").write_text("{}")
    assert "not a run" in refused(run.root.parent, "one").what
    run.manifest.unlink()
    assert "no such run" in refused(run.root.parent, "one").what


def test_a_cell_is_refused_where_a_report_needs_it(tmp_path: Path):
    for kind, part in (("bench", "cells/a/run"), ("study", "runs/a")):
        work = tmp_path / kind
        work.mkdir()
        (work / f"{kind}.json").write_text("{}")
        cell = write_synthetic_run(work / part, num_batches=4)
        if kind == "bench":
            assert "a benchmark needs it" in refused(tmp_path, str(cell.root)).what
        else:
            remove(tmp_path, "study/a")
            assert not cell.root.exists()


def test_nothing_is_removed_unless_all_can_be(run: RunPaths):
    refused(run.root.parent, "one", "no-such")
    write_synthetic_run(run.root.parent / "once", num_batches=4)
    assert "several" in refused(run.root.parent, "on").what
    assert "no run was given" in refused(run.root.parent).what


def part_of(run_dir: Path, connection: str = "local") -> HostPart:
    host = Host(name="box", connection=connection, address="192.0.2.9", ports=None)  # type: ignore[arg-type]
    return HostPart(host=host, python="python3", source="/w/bundles/b", run_dir=str(run_dir))


def test_what_still_runs_here_is_refused(run: RunPaths):
    write_deployment(run.root, Deployment(run_id="one", parts=(part_of(run.root),)))
    env = {**os.environ, RUN_VARIABLE: mark("one", "box", str(run.root))}
    script = "print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        error = refused(run.root.parent, "one")
        assert "still runs on box" in error.what
        assert "tianji down one" in error.fix
        process.stdin.write(b"\n")
        process.stdin.flush()
    remove(run.root.parent, "one")
    assert not run.root.exists()


def test_what_is_being_written_is_refused(run: RunPaths):
    """A run inside its command has no record of its processes."""
    run.summary.unlink()
    with (run.trace / "events.jsonl").open("a"):
        error = refused(run.root.parent, "one")
        assert f"process {os.getpid()} is writing trace/events.jsonl" in error.what
    with (run.trace / "events.jsonl").open():
        remove(run.root.parent, "one")
    assert not run.root.exists()


@pytest.mark.parametrize("facts", [{"is_detached": True}, {"has_ended": True}, {}])
def test_what_may_be_left_on_hosts_is_refused(run: RunPaths, facts: dict[str, bool]):
    remote = part_of(Path("/w/runs/one"), "ssh")
    write_deployment(run.root, Deployment(run_id="one", parts=(remote,), **facts))
    error = refused(run.root.parent, "one")
    assert "box may still run it, or hold files of it" in error.what
    assert "tianji down one" in error.fix


def test_results_from_elsewhere_are_just_files(
    run: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    remote = part_of(Path("/w/runs/one"), "ssh")
    write_deployment(run.root, Deployment(run_id="one", parts=(remote,), is_detached=True))
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "another user"))
    remove(run.root.parent, "one")
    assert not run.root.exists()


def test_what_was_collected_is_deleted(run: RunPaths):
    remote = part_of(Path("/w/runs/one"), "ssh")
    write_deployment(run.root, Deployment(run_id="one", parts=(remote,), is_collected=True))
    remove(run.root.parent, "one")
    assert not run.root.exists()


def test_a_damaged_deployment_stops_nothing(run: RunPaths):
    (run.root / DEPLOYMENT_NAME).write_text("torn {")
    remove(run.root.parent, "one")
    assert not run.root.exists()


def test_who_cannot_be_asked_must_have_agreed(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(ConfigError) as caught:
        delete_command(run.root.parent, ["one"], Output(), is_agreed=False)
    assert caught.value.fix == "add --yes"
    monkeypatch.setattr(sys, "stdin", Terminal())
    asked = []

    def confirm(question: str, **_more: bool) -> bool:
        asked.append(question)
        return len(asked) > 1

    monkeypatch.setattr(runs_delete.typer, "confirm", confirm)
    delete_command(run.root.parent, ["one"], Output(), is_agreed=False)
    assert run.manifest.is_file()
    assert "nothing was deleted" in capsys.readouterr().err
    delete_command(run.root.parent, ["one"], Output(), is_agreed=False)
    assert not run.root.exists()
    assert asked[0].startswith("Delete 1 run, ")


class Terminal:
    """Standard input with somebody at it."""

    def isatty(self) -> bool:
        return True


def test_what_could_not_be_removed_is_still_a_run(run: RunPaths, monkeypatch: pytest.MonkeyPatch):
    def fail(name: str, directory: int) -> None:
        if name == "trace":
            raise PermissionError(13, "Permission denied", "trace")
        removal(name, directory)

    removal = deletion._remove
    monkeypatch.setattr(deletion, "_remove", fail)
    with pytest.raises(CleanupError):
        remove(run.root.parent, "one")
    monkeypatch.undo()
    assert run.manifest.is_file(), "so that it is listed, and can be deleted again"
    remove(run.root.parent, "one")
    assert not run.root.exists()
