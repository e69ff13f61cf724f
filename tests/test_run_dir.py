"""Which directories are runs, among those of other users and those that are none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import ConfigError
from tianji_cli.commands.report_kinds import report_other
from tianji_cli.deployment import read_deployment
from tianji_cli.origin import find_origin
from tianji_cli.output import Output
from tianji_cli.run_dir import find_runs, resolve_run


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
        find_origin(tmp_path, "newer")


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
