"""Which directories are runs, among those of other users and those that are none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.errors import ConfigError
from tianji_cli.commands.benchmarks.report_kinds import report_other
from tianji_cli.output import Output
from tianji_cli.runs.resume import find_resume_point
from tianji_cli.storage.deployment import read_deployment
from tianji_cli.storage.run_dir import (
    MAX_RUN_ID,
    claim_new_run,
    claim_run,
    find_runs,
    give_back,
    make_run_tree,
    resolve_run,
    undone_unless_begun,
)


def make_run(results: Path, run_id: str, *, written_s: int) -> None:
    manifest = results / run_id / "manifest.json"
    manifest.parent.mkdir()
    manifest.write_text("{}")
    os.utime(manifest, (written_s, written_s))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs, and one of another user with mode 0700: root would see into that, too."""
    for number, run_id in enumerate(("run-b", "run-a", "run-private")):
        make_run(tmp_path, run_id, written_s=number)
    (tmp_path / "no-run").mkdir()
    look = Path.stat

    def look_as_user(path: Path, **options: bool) -> os.stat_result:
        if path.parent.name == "run-private":
            raise PermissionError(13, "Permission denied", str(path))
        return look(path, **options)

    monkeypatch.setattr(Path, "stat", look_as_user)
    return tmp_path


def test_what_may_not_be_looked_into_hides_no_other_run(results: Path) -> None:
    assert [paths.run_id for paths in find_runs(results)] == ["run-b", "run-a"]
    assert resolve_run(results, None).run_id == "run-a"
    assert resolve_run(results, "run-b").run_id == "run-b"
    assert resolve_run(results, str(results / "run-b")).run_id == "run-b"


@pytest.mark.parametrize("name", ["run-private", "path"])
def test_another_users_run_is_no_run_of_ours(results: Path, name: str) -> None:
    name = str(results / "run-private") if name == "path" else name
    with pytest.raises(ConfigError, match="no such run"):
        resolve_run(results, name)


def test_a_report_looks_past_it(results: Path) -> None:
    for name in ("run", "run-private"):
        assert not report_other([name], results, None, Output(), archives=False)


def test_a_directory_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ConfigError, match="Permission denied") as caught:
        find_runs(tmp_path)
    assert caught.value.where == str(tmp_path)


def test_a_deployment_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "deployment.json").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_deployment(tmp_path)


def test_a_run_of_a_newer_release_is_not_gone_on_from(tmp_path: Path) -> None:
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "manifest.json").write_text('{"schema_version": 2}')
    with pytest.raises(ConfigError, match="schema_version 2 is newer than 1"):
        find_resume_point(tmp_path, "newer")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ('{"schema_version": 1, "run_id": "r", "parts": []}', "length >= 1"),
        ('{"schema_version": 2, "run_id": "r", "parts": []}', "newer than 1"),
        ('{"schema_version": 1, "run_id": ', "not a file of a run"),
    ],
)
def test_a_deployment_that_is_no_use_is_refused(tmp_path: Path, document: str, words: str) -> None:
    (tmp_path / "deployment.json").write_text(document)
    with pytest.raises(ConfigError, match=words) as caught:
        read_deployment(tmp_path)
    assert "deployment.json" in caught.value.where


NOW = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)


def test_a_name_is_had_by_one_command_only(tmp_path: Path) -> None:
    def claim(_: int) -> str:
        try:
            return claim_run(tmp_path / "results", "mine").run_id
        except ConfigError:
            return ""

    with ThreadPoolExecutor(max_workers=8) as pool:
        assert sorted(pool.map(claim, range(8))) == [*[""] * 7, "mine"]


def test_automatic_names_of_one_second_differ(tmp_path: Path) -> None:
    with ThreadPoolExecutor(max_workers=8) as pool:
        claimed = list(pool.map(lambda _: claim_new_run(tmp_path, "ppo", NOW), range(8)))
    first = "20260131-235959-ppo"
    wanted = {first, *(f"{first}-{number}" for number in range(2, 9))}
    assert {paths.run_id for paths in claimed} == wanted
    assert all(list(paths.root.iterdir()) == [] for paths in claimed)


def test_an_automatic_name_never_grows_too_long(tmp_path: Path) -> None:
    name = "x" * (MAX_RUN_ID - len("20260131-235959-"))
    ids = [claim_new_run(tmp_path, name, NOW).run_id for _ in range(12)]
    assert len(set(ids)) == 12
    assert {len(run_id) for run_id in ids} == {MAX_RUN_ID}


@pytest.mark.parametrize("what", ["file", "dangling link", "run", "empty directory"])
def test_whatever_has_the_name_is_left_alone(tmp_path: Path, what: str) -> None:
    root = tmp_path / "mine"
    if what == "file":
        root.write_text("kept")
    elif what == "dangling link":
        root.symlink_to(tmp_path / "nowhere")
    else:
        root.mkdir()
    if what == "run":
        (root / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match="exists and is not overwritten") as caught:
        claim_run(tmp_path, "mine")
    assert ("rmdir" in caught.value.fix) == (what == "empty directory")
    assert os.path.lexists(root)
    assert not (tmp_path / "nowhere").exists()


def test_a_run_that_does_not_begin_gives_its_name_back(tmp_path: Path) -> None:
    paths = claim_run(tmp_path, "mine")
    make_run_tree(paths, ["here"])
    with pytest.raises(KeyboardInterrupt), undone_unless_begun(paths):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    give_back(claim_run(tmp_path, "mine"))
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_has_begun_is_not_given_back(tmp_path: Path) -> None:
    paths = claim_run(tmp_path, "mine")
    with undone_unless_begun(paths):
        make_run_tree(paths, ["here"])
    give_back(paths)
    assert (paths.logs / "here").is_dir()
