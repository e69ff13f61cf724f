"""What may go on with `--resume`: the same code, the same systems, and one command at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from bench_fakes import FakePeer, make_suite, make_task

from engine.errors import ConfigError
from tianji_cli.baselines.base import Installed, PeerMissingError, PeerOptions
from tianji_cli.baselines.venv_peer import options_of, venv_python
from tianji_cli.bench.conditions import check_code, check_versions, code_state, note_on_code
from tianji_cli.bench.exclusive import exclusively
from tianji_cli.bench.harness import Bench, create, new_bench, with_peers_of_now
from tianji_cli.commands.bench_request import BenchRequest, Undertaking, conduct
from tianji_cli.manifest import GitState
from tianji_cli.output import Output

OLD = GitState(commit="0123456789abcdef", dirty=False)
NEW = GitState(commit="fedcba9876543210", dirty=False)


def request_for(root: Path, *, resume: bool) -> BenchRequest:
    return BenchRequest(
        suite="", inventory=None, compare="", tasks=(), seeds=None, budget_s=None, settings=(),
        results=root.parent, name=None, resume=root.name if resume else None,
        peer_options=PeerOptions(root), yes=True, dry_run=False, skip_missing=False, strict=False,
    )  # fmt: skip


def conducted(
    root: Path,
    *,
    resume: bool = True,
    git: GitState | None = None,
    num_open: int = 1,
    run: Callable[[], None] = lambda: None,
) -> int:
    undertaking = Undertaking(
        name=root.name,
        root=root,
        manifest=msgspec.Struct(),
        git=git or code_state(),
        num_open=num_open,
        create=root.mkdir,
        run=run,
        report=lambda: True,
    )
    return conduct(undertaking, request_for(root, resume=resume), Output(verbosity=-1))


def test_other_code_may_not_go_on_but_may_report(tmp_path: Path):
    with pytest.raises(ConfigError, match="begun by commit 0123456789ab, this is commit") as error:
        conducted(tmp_path, git=OLD)
    assert "go back to commit 0123456789ab" in error.value.fix
    assert "another --name" in error.value.fix
    assert conducted(tmp_path, git=OLD, num_open=0) == 0
    assert conducted(tmp_path) == 0


def test_the_commit_decides_and_changes_beside_it_are_told():
    dirty = msgspec.structs.replace(OLD, dirty=True)
    nowhere = GitState(commit=None, dirty=None)
    check_code(OLD, dirty, "b")
    check_code(nowhere, nowhere, "b")
    with pytest.raises(ConfigError, match="this is a TianJi outside a checkout"):
        check_code(OLD, nowhere, "b")
    assert note_on_code(OLD, OLD) is note_on_code(nowhere, nowhere) is None
    for earlier, here, when in ((dirty, OLD, "at its begin"), (OLD, dirty, "now")):
        assert f"({when})" in (note_on_code(earlier, here) or "")
    assert "(at its begin and now)" in (note_on_code(dirty, dirty) or "")


def test_a_benchmark_under_way_is_left_alone(tmp_path: Path):
    other_runs = []

    def run_meanwhile() -> None:
        with pytest.raises(ConfigError, match="another command is running it"):
            conducted(root, run=lambda: other_runs.append(1))

    root = tmp_path / "new"
    assert conducted(root, resume=False, run=run_meanwhile) == 0
    assert conducted(root, run=run_meanwhile) == 0
    assert other_runs == []
    with exclusively(root):  # it is let go at the end
        pass


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
    assert "install what it was begun with" in error.value.fix


def begun(root: Path, *peers: FakePeer) -> Bench:
    installed = {peer.name: peer.prepare(PeerOptions(root)) for peer in peers}
    suite = make_suite(make_task([peer.name for peer in peers]), 1)
    bench = new_bench(suite, peers, installed, [0], root)
    create(bench)
    return bench


def test_a_system_that_was_updated_meanwhile_may_not_go_on(tmp_path: Path):
    class Updated(FakePeer):
        def prepare(self, options: PeerOptions) -> Installed:
            return Installed(python="python", versions={"fake": "2"})

    bench = begun(tmp_path / "b", FakePeer("tianji", ""), FakePeer("rllib", ""))
    now = {"tianji": FakePeer("tianji", ""), "rllib": Updated("rllib", "")}
    with pytest.raises(ConfigError, match="rllib: fake was 1, is 2"):
        with_peers_of_now(bench, now)
    assert with_peers_of_now(bench, {**now, "rllib": FakePeer("rllib", "")}) == bench


def test_only_systems_with_open_cells_must_be_there(tmp_path: Path):
    class Gone(FakePeer):
        def prepare(self, options: PeerOptions) -> Installed:
            raise PeerMissingError("it is gone")

    bench = begun(tmp_path / "b", FakePeer("tianji", ""), FakePeer("rllib", ""))
    now = {"tianji": FakePeer("tianji", ""), "rllib": Gone("rllib", "")}
    with pytest.raises(PeerMissingError, match="it is gone"):
        with_peers_of_now(bench, now)
    done = {cell: None for cell in bench.manifest.cells if cell.peer == "rllib"}
    almost = Bench(bench.paths, bench.manifest, done)  # type: ignore[arg-type]
    assert with_peers_of_now(almost, now) == almost


def test_a_system_is_looked_for_where_it_was_found(tmp_path: Path):
    python = venv_python(tmp_path / "peers", "rllib")
    assert venv_python(options_of(str(python)).peers_dir, "rllib") == python
    assert options_of("/opt/xt/bin/python").xingtian_python == Path("/opt/xt/bin/python")
