"""What may go on with `--resume`: the same code, the same systems, and one command at a time."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import msgspec
import pytest

from engine.errors import ConfigError, PreflightError
from tests.helpers.bench.bench_fakes import FakeSystem, make_suite, make_task
from tests.helpers.bench.bench_requests import request_for
from tianji_cli.bench.campaign import Campaign, exclusively, read_campaign
from tianji_cli.bench.cells import CampaignFiles, Manifest, Result, beginning
from tianji_cli.bench.comparison.harness import Bench, new_bench, with_systems_of_now
from tianji_cli.bench.compatibility import (
    check_code,
    check_host_versions,
    check_own_versions,
    check_versions,
    note_on_code,
    own_versions,
)
from tianji_cli.bench.kinds import KindInfo
from tianji_cli.bench.machine import Machine, this_machine
from tianji_cli.bench.systems.base import Installed, SystemMissingError, SystemOptions
from tianji_cli.bench.systems.probe import options_of, venv_python
from tianji_cli.bench.tasks.suite import Task
from tianji_cli.commands.benchmarks.bench_request import BenchRequest
from tianji_cli.commands.benchmarks.conduct import Kind, conduct
from tianji_cli.git_state import GitState
from tianji_cli.output import Output
from tianji_cli.render.bench.bench_live import BenchDisplay
from tianji_cli.storage.json_files import create_result_dir

OLD = GitState(commit="0123456789abcdef", dirty=False)
NEW = GitState(commit="fedcba9876543210", dirty=False)


class LeastCell(msgspec.Struct, frozen=True):
    name: str


class LeastSuite(msgspec.Struct, frozen=True):
    name: str = "least"
    summary: str = "the least that is one"


class LeastManifest(Manifest[LeastSuite, LeastCell], frozen=True, kw_only=True):
    """The least that says what a benchmark is."""


class LeastFiles(CampaignFiles[LeastManifest, LeastCell, Result[LeastCell]]):
    """A cell is done when a file of its name is there."""

    kind = KindInfo("least", "study", "a test", "nowhere")
    manifest_type = LeastManifest
    result_type = Result[LeastCell]

    def result(self, cell: LeastCell) -> Path:
        return self.root / cell.name


Least: TypeAlias = Campaign[LeastFiles, LeastManifest, LeastCell]


class LeastKind(Kind[LeastFiles, LeastManifest, LeastCell, Result[LeastCell]]):
    """Runs a function in the place of the first cell."""

    files = LeastFiles

    def __init__(self, root: Path, manifest: LeastManifest, run: Callable[[Least], None]) -> None:
        self._planned = Campaign(LeastFiles(root), manifest, manifest.cells)
        self._run = run

    def plan(self, request: BenchRequest, output: Output) -> Least:
        return self._planned

    def announce(self, work: Least) -> Iterator[str]:
        return iter(())

    def runner(
        self, work: Least, display: BenchDisplay, held: ExitStack
    ) -> Callable[[LeastCell], None]:
        self._run(work)
        return lambda _: None

    def line(self, result: Result[LeastCell]) -> str:
        return ""

    def report(self, roots, out, output, *, archives=False):  # type: ignore[no-untyped-def]
        return True


def conducted(
    root: Path,
    *,
    resume: bool = True,
    git: GitState | None = None,
    machine: Machine | None = None,
    resume_as: str | None = None,
    is_asked: bool = False,
    verbosity: int = -1,
    run: Callable[[Least], None] = lambda work: finish(work, *names(work)),
) -> int:
    """Of a benchmark of two cells."""
    facts = beginning()
    facts["git"], facts["machine"] = git or facts["git"], machine or facts["machine"]
    cells = [LeastCell("a"), LeastCell("b")]
    manifest = LeastManifest(bench_id=root.name, suite=LeastSuite(), cells=cells, **facts)
    request = replace(request_for(root, resume=resume), yes=not is_asked)
    if resume_as is not None:
        request = replace(request, resume=resume_as)
    place = request.resumed()[1] if resume else None
    return conduct(LeastKind(root, manifest, run), request, Output(verbosity=verbosity), place)


def names(work: Least) -> list[str]:
    return [cell.name for cell in work.open_cells]


def finish(work: Least, *cells: str) -> None:
    for cell in work.manifest.cells:
        if cell.name in cells:
            done = Result(cell=cell, outcome="ok", machine_id=work.manifest.machine.id)
            work.files.write_result(cell, done)


def interrupted(root: Path, *, git: GitState | None = None, machine: Machine | None = None) -> Path:
    """An undertaking that was begun under these conditions and is half done."""

    def run(work: Least) -> None:
        finish(work, "a")
        raise KeyboardInterrupt

    assert conducted(root, resume=False, run=run, git=git, machine=machine) == 130
    return root


def test_other_code_may_not_go_on_but_may_report(tmp_path: Path):
    root = interrupted(tmp_path / "b", git=OLD)
    with pytest.raises(ConfigError, match="begun by commit 0123456789ab, this is commit") as error:
        conducted(root)
    assert "go back to commit 0123456789ab" in error.value.fix
    assert "another --name" in error.value.fix
    finish(read_campaign(LeastFiles(root)), "b")
    assert conducted(root) == 0
    assert conducted(interrupted(tmp_path / "c")) == 0


def test_another_machine_may_not_go_on(tmp_path: Path):
    elsewhere = msgspec.structs.replace(this_machine(), id="other")
    with pytest.raises(ConfigError, match="begun on machine other"):
        conducted(interrupted(tmp_path / "b", machine=elsewhere))


def test_the_commit_decides_and_changes_beside_it_are_told():
    dirty = msgspec.structs.replace(OLD, dirty=True)
    nowhere = GitState(commit=None, dirty=None)
    check_code(OLD, dirty, "b")
    check_code(nowhere, nowhere, "b")
    with pytest.raises(ConfigError, match="this is a TianJi outside a checkout"):
        check_code(OLD, nowhere, "b")
    assert note_on_code(OLD, OLD) is note_on_code(nowhere, nowhere) is None
    for earlier, here, when in ((dirty, OLD, "at its start"), (OLD, dirty, "now")):
        assert f"({when})" in (note_on_code(earlier, here) or "")
    assert "(at its start and now)" in (note_on_code(dirty, dirty) or "")


def test_a_benchmark_under_way_is_left_alone(tmp_path: Path):
    other_runs = []

    def run_meanwhile(_: Least) -> None:
        with pytest.raises(ConfigError, match="another command is running it"):
            conducted(root, run=lambda _: other_runs.append(1))

    root = tmp_path / "new"
    assert conducted(root, resume=False, run=run_meanwhile) == 0
    assert conducted(root, run=run_meanwhile) == 0
    assert other_runs == []
    with exclusively(root):  # it is let go at the end
        pass


def test_what_is_open_is_read_under_the_lock_and_stays_open_while_one_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root, seen = interrupted(tmp_path / "b"), []
    read_manifest = LeastFiles.read_manifest

    def assert_locked() -> None:
        with pytest.raises(ConfigError, match="another command"), exclusively(root):
            pass
        seen.append("locked")

    def confirm(*_: object, **__: object) -> bool:
        assert_locked()
        return True

    def read_locked(files: LeastFiles) -> LeastManifest:
        assert_locked()
        return read_manifest(files)

    monkeypatch.setattr(LeastFiles, "read_manifest", read_locked)
    monkeypatch.setattr("tianji_cli.commands.benchmarks.conduct.typer.confirm", confirm)
    done = conducted(root, is_asked=True, run=lambda work: seen.extend(names(work)))
    assert (done, seen) == (0, ["locked", "locked", "b"])


def test_what_was_never_begun_cannot_go_on(tmp_path: Path):
    with pytest.raises(ConfigError, match="no benchmark or study to resume") as caught:
        conducted(tmp_path / "b")
    assert caught.value.where == str(tmp_path / "b")


def test_every_package_that_has_changed_is_named():
    earlier = {"rllib": {"ray": "2.59.0", "torch": "2.13.0"}, "tianji": {"torch": "2.13.0"}}
    check_versions(earlier, earlier, "b")
    here = {**earlier, "rllib": {"ray": "2.60.0", "gym": "1"}}
    with pytest.raises(ConfigError) as error:
        check_versions(earlier, here, "b")
    assert error.value.what == (
        "rllib: gym was not there, is 1; rllib: ray was 2.59.0, is 2.60.0;"
        " rllib: torch was 2.13.0, is not there"
    )
    assert "install the versions it was started with" in error.value.fix


def test_hosts_are_compared_with_themselves_as_far_as_both_are_known():
    old, new = {"torch": "2.12.0"}, {"torch": "2.13.0"}
    check_host_versions([], {"a": new}, "b")
    check_host_versions([{}, {"a": new}], {"a": new, "b": old}, "b")
    check_host_versions([{"a": new, "b": old}], {"a": new}, "b")
    with pytest.raises(ConfigError, match=r"b: torch was 2.12.0, is 2.13.0"):
        check_host_versions([{"a": new, "b": old}, {"a": new}], {"a": new, "b": new}, "b")


def test_own_packages_are_compared_unless_the_document_is_of_before():
    here = own_versions()
    assert {"tianji", "python", "torch", "numpy"} <= set(here)
    check_own_versions({}, "b")
    check_own_versions(here, "b")
    with pytest.raises(ConfigError, match=r"numpy was 1\.0, is "):
        check_own_versions({**here, "numpy": "1.0"}, "b")


def begun(root: Path, *systems: FakeSystem) -> Bench:
    installed = {system.name: system.prepare(SystemOptions(root)) for system in systems}
    suite = make_suite(make_task([system.name for system in systems]), 1)
    bench = new_bench(suite, systems, installed, [0], root)
    create_result_dir(bench.files.manifest, bench.manifest)
    return bench


def test_a_system_that_was_updated_meanwhile_may_not_go_on(tmp_path: Path):
    class Updated(FakeSystem):
        def prepare(self, options: SystemOptions, tasks: Sequence[Task] = ()) -> Installed:
            return Installed(python="python", versions={"fake": "2"})

    bench = begun(tmp_path / "b", FakeSystem("tianji", ""), FakeSystem("rllib", ""))
    now = {"tianji": FakeSystem("tianji", ""), "rllib": Updated("rllib", "")}
    with pytest.raises(ConfigError, match="rllib: fake was 1, is 2"):
        with_systems_of_now(bench, now)
    assert with_systems_of_now(bench, {**now, "rllib": FakeSystem("rllib", "")}) == bench


def test_only_systems_with_open_cells_must_be_there(tmp_path: Path):
    class Gone(FakeSystem):
        def prepare(self, options: SystemOptions, tasks: Sequence[Task] = ()) -> Installed:
            raise SystemMissingError("it is gone")

    bench = begun(tmp_path / "b", FakeSystem("tianji", ""), FakeSystem("rllib", ""))
    now = {"tianji": FakeSystem("tianji", ""), "rllib": Gone("rllib", "")}
    with pytest.raises(SystemMissingError, match="it is gone"):
        with_systems_of_now(bench, now)
    almost = replace(bench, open_cells=[c for c in bench.open_cells if c.system == "tianji"])
    assert with_systems_of_now(almost, now) == almost


def test_a_system_is_looked_for_where_it_was_found(tmp_path: Path):
    python = venv_python(tmp_path / "peers", "rllib")
    assert venv_python(options_of(str(python)).systems_dir, "rllib") == python
    assert options_of("/opt/xt/bin/python").xingtian_python == Path("/opt/xt/bin/python")


def test_an_interrupted_one_says_how_it_is_found_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def interrupt(work: Least) -> None:
        raise KeyboardInterrupt

    conducted(tmp_path / "b", resume=False, run=interrupt, verbosity=0)
    assert f"tianji bench --resume b --results {tmp_path}" in capsys.readouterr().err
    elsewhere = (tmp_path / "b").rename(tmp_path / "kept here")
    monkeypatch.chdir(tmp_path)
    conducted(Path("results/kept here"), resume_as=str(elsewhere), run=interrupt, verbosity=0)
    assert f"tianji bench --resume '{elsewhere}' --results results" in capsys.readouterr().err


def test_a_disk_that_refuses_ends_it_with_one_error_and_nothing_is_lost(tmp_path: Path):
    def fill_the_disk(work: Least) -> None:
        finish(work, "a")
        raise OSError(errno.ENOSPC, "No space left on device", str(work.files.root / "b"))

    with pytest.raises(PreflightError, match="No space left on device") as caught:
        conducted(tmp_path / "b", resume=False, run=fill_the_disk)
    assert caught.value.where == str(tmp_path / "b" / "b")
    assert f"tianji bench --resume b --results {tmp_path}" in caught.value.fix
    still = []
    assert conducted(tmp_path / "b", run=lambda work: still.extend(names(work))) == 0
    assert still == ["b"]


def test_what_could_not_be_begun_leaves_its_name_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tianji_cli.storage.json_files.write_json", full)
        with pytest.raises(PreflightError, match="No space left"):
            conducted(tmp_path / "b", resume=False)
    assert conducted(tmp_path / "b", resume=False) == 0
