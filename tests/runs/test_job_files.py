"""Files of a submitted run come from the node of its script, unless both see the same disk."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from engine.errors import ConfigError, HostUnreachableError
from tests.helpers.fake_slurm import FakeSlurm, record
from tests.helpers.synthetic_run import write_synthetic_run
from tianji_cli.config.inventory import Host
from tianji_cli.runs.job_files import borrowed, bring, may_be_elsewhere, node_of
from tianji_cli.runs.submitted import SubmittedRun
from tianji_cli.slurm.job_record import SubmittedJob, note_own_job, read_job
from tianji_cli.slurm.job_state import job_state
from tianji_cli.storage.consent import Consent
from tianji_cli.storage.deployment import Deployment, HostPart, read_deployment
from tianji_cli.storage.json_files import write_json

RUNNING = job_state(record("RUNNING", batch_host="tj2"))
HOST = Host(name="tj2", connection="slurm", job="42", address="10.0.0.2", ports=(29500, 29600))


class DiskNode:
    """A node with a disk of its own: what it knows under a path of this machine is elsewhere."""

    name = "tj2"
    is_remote = True

    def __init__(self, disk: Path, *, shares: bool = False) -> None:
        self._disk = disk
        self._shares = shares
        self.is_closed = False

    def _at(self, path: str) -> Path:
        return Path(path) if self._shares else self._disk / path.lstrip("/")

    def exists(self, path: str) -> bool:
        return self._at(path).exists()

    def read(self, path: str, offset: int = 0, max_bytes: int = -1) -> bytes:
        place = self._at(path)
        data = place.read_bytes()[offset:] if place.exists() else b""
        return data if max_bytes < 0 else data[:max_bytes]

    def walk(self, root: str) -> dict[str, int]:
        place = self._at(root)
        return {
            str(path.relative_to(place)): path.stat().st_size
            for path in place.rglob("*")
            if path.is_file()
        }

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def run(tmp_path: Path) -> SubmittedRun:
    (tmp_path / "results/run").mkdir(parents=True)
    job = SubmittedJob(run_id="run", job="42")
    note_own_job(job)
    return SubmittedRun(tmp_path / "results", job)


def written(disk: Path, run: SubmittedRun, name: str = "run", *, is_collected: bool = True) -> Path:
    """A run as `up` has it on the node's disk."""
    root = disk / str(run.results.absolute()).lstrip("/") / name
    write_synthetic_run(root)
    shutil.rmtree(root / "logs")
    (root / "logs/tj2").mkdir(parents=True)
    (root / "logs/tj2/actor-0.log").write_text("hello\n")
    part = HostPart(host=HOST, python="python3", source="/s", run_dir=f"/w/runs/{name}@tj2")
    deployment = Deployment(run_id=name, parts=(part,), is_collected=is_collected)
    write_json(root / "deployment.json", deployment)
    return root


def files(root: Path) -> Mapping[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_all_runs_of_a_job_come_and_later_only_what_is_new(run, tmp_path):
    disk = tmp_path / "disk"
    first, second = written(disk, run), written(disk, run, "run-2")
    (first / "job.log").write_text("one\n")
    assert may_be_elsewhere(run, RUNNING)
    bring(run, DiskNode(disk), has_ended=False)
    assert not (run.results / "run/summary.json").exists(), "it is replaced as a whole, at the end"
    (first / "job.log").write_text("one\ntwo\n")
    bring(run, DiskNode(disk), has_ended=True)
    here = files(run.results / "run")
    del here["job.json"]
    assert here == files(first)
    assert files(run.results / "run-2") == files(second)
    assert [paths.run_id for paths in run.runs] == ["run", "run-2"]
    recorded = read_job(run.first.root)
    assert recorded is not None
    assert recorded.is_elsewhere
    assert may_be_elsewhere(SubmittedRun(run.results, recorded), RUNNING), (
        "it knows it from then on"
    )


def test_on_a_shared_disk_nothing_is_copied(run, tmp_path):
    """Its log is not seen yet here, but the node sees a file that is made here."""
    bring(run, DiskNode(tmp_path / "disk", shares=True), has_ended=False)
    assert not list(run.first.root.iterdir())
    assert not run.job.is_elsewhere


def test_hosts_that_a_node_names_are_not_used_without_being_asked(run, tmp_path):
    written(tmp_path / "disk", run, is_collected=False)
    bring(run, DiskNode(tmp_path / "disk"), has_ended=False)
    with pytest.raises(ConfigError, match="did not start"):
        read_deployment(run.first.root, Consent())
    assert read_deployment(run.first.root, Consent(is_given=True)).parts[0].host == HOST


def test_before_it_has_begun_there_is_nothing_to_bring(run):
    waiting = record("PENDING", nodes="(null)", batch_host="(null)")
    cancelled = record("CANCELLED", nodes="(null)", batch_host="(null)")
    assert not may_be_elsewhere(run, job_state(waiting))
    assert not may_be_elsewhere(run, job_state(cancelled))
    run.log.write_text("here\n")
    assert not may_be_elsewhere(run, RUNNING)


def test_a_job_that_is_over_is_asked_through_a_short_one_on_its_node(run, tmp_path, monkeypatch):
    fake = FakeSlurm(tmp_path)
    monkeypatch.setenv("PATH", fake.install())
    fake.says(record("RUNNING"))
    reached: list[Host] = []

    def reach(host: Host, cancel: threading.Event) -> DiskNode:
        reached.append(host)
        return DiskNode(tmp_path / "disk")

    over = job_state(record("COMPLETED", batch_host="tj2"))
    with node_of(run, over, reach) as node:  # type: ignore[arg-type]
        assert not node.is_closed  # type: ignore[attr-defined]
    assert node.is_closed  # type: ignore[attr-defined]
    assert (reached[0].name, reached[0].connection, reached[0].job) == ("tj2", "slurm", "42")
    for option in ("nodelist=tj2", "partition=main", "time=10", "nodes=1"):
        assert f"#SBATCH --{option}\n" in fake.script
    assert fake.calls[-1] == "scancel --quiet 42"


def test_a_node_on_which_no_job_starts_is_named(tmp_path, monkeypatch):
    fake = FakeSlurm(tmp_path)
    monkeypatch.setenv("PATH", fake.install())
    monkeypatch.setattr("tianji_cli.runs.job_files.START_S", 0.0)
    fake.says(record("PENDING", reason="ReqNodeNotAvail", nodes="(null)"))
    with (
        pytest.raises(HostUnreachableError, match=r"no job starts there.*ReqNodeNotAvail"),
        borrowed("tj3", RUNNING),
    ):
        pass
    assert fake.calls[-1] == "scancel --quiet 42"
