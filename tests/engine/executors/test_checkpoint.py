"""Checkpoints: complete, verifiable, never more than wanted, and exactly what was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import safetensors.torch
import torch

from engine.algorithms.base import LearnerState
from engine.blueprint import Blueprint, make_blueprint
from engine.errors import ConfigError
from engine.executors.checkpoint import load_checkpoint, save_checkpoint
from engine.progress import RunCounters
from engine.spec import NetworkSpec, PolicySharing
from engine.trace import checkpoint_file
from engine.trace.checkpoint_choice import choose_checkpoint
from engine.trace.checkpoint_file import (
    check_identity,
    identity_of,
    identity_sha256,
    is_identity,
    read_info,
    verify,
)
from tests.helpers.engine.small_learners import ALGORITHMS, batch_of, experiment
from tests.helpers.paths import REPOSITORY
from tests.helpers.warm.start import PROGRAM

COUNTERS = RunCounters(elapsed_s=1.5, env_steps_collected=120, env_steps_consumed=100)


@pytest.fixture(scope="module", params=sorted(ALGORITHMS))
def any_blueprint(request: pytest.FixtureRequest) -> Blueprint:
    return make_blueprint(experiment(request.param))


@pytest.fixture(scope="module")
def blueprint() -> Blueprint:
    return make_blueprint(experiment())


@pytest.fixture
def state(blueprint: Blueprint) -> LearnerState:
    return trained(blueprint, 2)


def trained(blueprint: Blueprint, num_updates: int) -> LearnerState:
    state = blueprint.algorithm.init(1)
    for number in range(num_updates):
        blueprint.algorithm.update(state, batch_of(blueprint, number))
    return state


def save(directory: Path, state: LearnerState, blueprint: Blueprint, version: int) -> Path:
    return save_checkpoint(directory, state, blueprint, version=version, counters=COUNTERS)


def parameters(state: LearnerState) -> dict[str, torch.Tensor]:
    found = {"weights": state.weights.vector.detach(), **state.optimizer.named_tensors()}
    if state.target is not None:
        found["target"] = state.target.weights.vector.detach()
    return {name: tensor.clone() for name, tensor in found.items()}


def assert_equal(one: LearnerState, other: LearnerState) -> None:
    for name, tensor in parameters(one).items():
        assert torch.equal(tensor, parameters(other)[name]), name
    assert torch.equal(one.generator.get_state(), other.generator.get_state())
    assert one.num_updates == other.num_updates


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_resumed_learner_becomes_exactly_what_an_uninterrupted_one_does(
    tmp_path: Path, any_blueprint: Blueprint
):
    """Every batch after the checkpoint changes both alike, to the last bit."""
    uninterrupted = trained(any_blueprint, 5)
    path = save(tmp_path, uninterrupted, any_blueprint, 5)
    resumed = any_blueprint.algorithm.init(99)
    assert not torch.equal(resumed.weights.vector, uninterrupted.weights.vector)
    load_checkpoint(path, resumed)
    assert_equal(resumed, uninterrupted)
    for number in range(5, 10):
        for state in (resumed, uninterrupted):
            any_blueprint.algorithm.update(state, batch_of(any_blueprint, number))
        assert_equal(resumed, uninterrupted)


def test_loading_keeps_the_network_a_view_on_the_flat_weights(
    tmp_path: Path, any_blueprint: Blueprint
):
    path = save(tmp_path, trained(any_blueprint, 2), any_blueprint, 2)
    state = any_blueprint.algorithm.init(7)
    load_checkpoint(path, state)
    flat = torch.cat([p.detach().reshape(-1) for p in state.network.parameters()])
    assert torch.equal(flat, state.weights.vector.detach())


def test_the_description_says_what_the_run_was_and_how_far(
    tmp_path: Path, state: LearnerState, blueprint: Blueprint
):
    info = verify(save(tmp_path, state, blueprint, 12))
    assert (info.version, info.updates, info.counters) == (12, state.num_updates, COUNTERS)
    assert info.buffer["kind"] == "queue"
    assert info.identity["env.id"] == "CartPole-v1"
    assert info.identity["algorithm.name"] == "ppo"
    check_identity(blueprint.experiment, info)


def test_a_checkpoint_of_before_wrappers_or_any_other_key_is_one_without_them(
    tmp_path: Path, state: LearnerState, blueprint: Blueprint
):
    info = verify(save(tmp_path, state, blueprint, 1))
    older = {key: value for key, value in info.identity.items() if key != "env.wrappers"}
    assert len(older) == len(info.identity) - 1
    replace = msgspec.structs.replace
    old = replace(info, identity=older, identity_sha256=identity_sha256(older))
    check_identity(blueprint.experiment, old)
    with pytest.raises(ConfigError, match="checksum of its identity"):
        check_identity(blueprint.experiment, replace(info, identity=older))
    env = replace(blueprint.experiment.env, wrappers=({"name": "A", "shape": (2, 2), "x": "y"},))
    wrapped = replace(blueprint.experiment, env=env)
    with pytest.raises(ConfigError) as caught:
        check_identity(wrapped, old)
    assert caught.value.where == "env.wrappers.0.name"
    kept = identity_of(wrapped)
    assert kept["env.wrappers.0.shape"] == [2, 2]
    check_identity(wrapped, replace(info, identity=kept, identity_sha256=identity_sha256(kept)))


@pytest.mark.parametrize("sharing", ["separate", {"pair": ("a", "b"), "other": ("c",)}])
def test_who_shares_a_policy_stays(
    tmp_path: Path, state: LearnerState, blueprint: Blueprint, sharing: PolicySharing
):
    info = verify(save(tmp_path, state, blueprint, 1))
    replace = msgspec.structs.replace
    check_identity(replace(blueprint.experiment, agents="shared"), info)
    with pytest.raises(ConfigError) as caught:
        check_identity(replace(blueprint.experiment, agents=sharing), info)
    assert caught.value.where in ("agents", "agents.other")
    assert is_identity(caught.value.where)


def test_only_the_newest_are_kept_and_nothing_else_is_left(tmp_path: Path, state: LearnerState):
    two = make_blueprint(experiment(keep=2))
    for version in (1, 2, 9, 10, 11):
        save(tmp_path, state, two, version)
    (tmp_path / ".v0000000012.json.tmp").write_bytes(b"unfinished")
    save(tmp_path, state, two, 11)
    kept = [read_info(tmp_path / f"v{version:010d}.json") for version in (10, 11)]
    assert names(tmp_path) == sorted(n for info in kept for n in (info.name, info.tensors_name))


def test_actors_environments_and_stop_rules_may_change_and_nothing_else(
    tmp_path: Path, state: LearnerState, blueprint: Blueprint
):
    info = verify(save(tmp_path, state, blueprint, 1))
    base = blueprint.experiment
    replace = msgspec.structs.replace
    free = replace(base, actors=9, policy="tianji", env=replace(base.env, num_envs=2))
    check_identity(free, info)
    for key, changed in {
        "seed": replace(base, seed=5),
        "env.id": replace(base, env=replace(base.env, id="Acrobot-v1")),
        "env.wrappers.0.name": replace(base, env=replace(base.env, wrappers=({"name": "A"},))),
        "env.kwargs.size": replace(base, env=replace(base.env, kwargs={"size": 3})),
        "algorithm.name": replace(base, algorithm={**base.algorithm, "name": "impala"}),
        "algorithm.discount": replace(base, algorithm={**base.algorithm, "discount": 0.5}),
        "network.hidden_sizes": replace(base, network=NetworkSpec(hidden_sizes=(9,))),
    }.items():
        with pytest.raises(ConfigError) as caught:
            check_identity(changed, info)
        assert caught.value.where == key


# ---------------------------------------------------------------- crashes while writing


def dies_in_a_child(action) -> int:
    """Runs in a forked child, which may only end by dying; returns the signal or code."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def saved(tmp_path: Path, state: LearnerState, blueprint: Blueprint) -> Path:
    """A directory with a whole checkpoint of version 1; the second is about to be written."""
    save(tmp_path, state, blueprint, 1)
    return tmp_path


def test_killed_at_any_byte_of_the_tensors_the_older_one_loads(
    saved: Path, state: LearnerState, blueprint: Blueprint
):
    """The kernel kills a process that writes beyond its limit: at exactly that byte."""
    import resource

    size = verify(saved / "v0000000001.json").num_bytes

    for limit in sorted({*range(0, size, 977), 1, 7, 8, 9, size - 1}):

        def write(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            save(saved, state, blueprint, 2)

        assert dies_in_a_child(write) == -signal.SIGXFSZ, limit
        found = choose_checkpoint(saved, "last")
        assert found.info.version == 1, limit
        assert not found.refused, "an unfinished one is no checkpoint, so there is nothing to say"
    save(saved, state, blueprint, 2)
    assert len(names(saved)) == 4, "what the dead have left is removed"


@pytest.mark.parametrize("version", [1, 2], ids=["again", "newer"])
@pytest.mark.parametrize("point", range(9))
def test_killed_between_any_two_steps_a_whole_one_loads(
    saved: Path,
    state: LearnerState,
    blueprint: Blueprint,
    monkeypatch: pytest.MonkeyPatch,
    point: int,
    version: int,
):
    """Before, or instead of, the n-th of all calls that change the disk, the process is killed."""
    with torch.no_grad():
        state.weights.vector.add_(1.0)
    (saved / ".v0000000000.json.tmp").write_bytes(b"")  # so that there is something to unlink
    calls = 0

    def fragile(function):
        def call(*arguments, **options):
            nonlocal calls
            if calls == point:
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1
            return function(*arguments, **options)

        return call

    monkeypatch.setattr("os.fsync", fragile(os.fsync))
    monkeypatch.setattr(Path, "replace", fragile(Path.replace))
    monkeypatch.setattr(Path, "unlink", fragile(Path.unlink))
    code = dies_in_a_child(lambda: save(saved, state, blueprint, version))
    monkeypatch.undo()
    assert code in (-signal.SIGKILL, 0)
    assert code == -signal.SIGKILL or point >= 6, "the fault did not happen"
    found = choose_checkpoint(saved, "last")
    assert not found.refused
    assert found.info.version in (1, version)
    load_checkpoint(saved / found.info.name, blueprint.algorithm.init(3))


WRITER = """
import sys
from pathlib import Path
import torch
from tests.engine.executors.test_checkpoint import experiment, save, trained
from engine.blueprint import make_blueprint
torch.set_num_threads(1)
blueprint = make_blueprint(experiment())
state = trained(blueprint, 1)
for version in range(1, 100_000):
    save(Path(sys.argv[1]), state, blueprint, version)
    print(version, flush=True)
"""


def test_what_a_killed_writer_said_was_written_is_there(tmp_path: Path, blueprint: Blueprint):
    """A real SIGKILL at moments that nobody chooses, several times."""
    path = str(REPOSITORY)
    for attempt in range(3):
        directory = tmp_path / str(attempt)
        with subprocess.Popen(
            [sys.executable, "-m", PROGRAM, WRITER, str(directory)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        ) as writer:
            assert writer.stdout is not None
            for _ in range(25):
                writer.stdout.readline()
            writer.kill()
            said = [int(line) for line in writer.stdout.read().split()]
        assert writer.returncode == -signal.SIGKILL
        found = choose_checkpoint(directory, "last")
        assert found.info.version >= max([25, *said])
        assert not found.refused
        load_checkpoint(directory / found.info.name, blueprint.algorithm.init(3))


def test_a_disk_that_refuses_leaves_earlier_checkpoints_alone(
    saved: Path, state: LearnerState, blueprint: Blueprint, monkeypatch: pytest.MonkeyPatch
):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        save(saved, state, blueprint, 2)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_tensors_without_a_description_do_not_stay_for_ever_nor_stop_anything(
    saved: Path, state: LearnerState
):
    """What a crash between the two files leaves, and what somebody's `rm` does."""
    one = make_blueprint(experiment(keep=1))
    (saved / "v0000000001.json").unlink()
    second = save(saved, state, one, 2)
    assert len(names(saved)) == 2
    second.with_name(read_info(second).tensors_name).unlink()
    save(saved, state, one, 3)
    assert len(names(saved)) == 2


# ---------------------------------------------------------------- damaged and hostile files


def two_checkpoints(
    directory: Path, state: LearnerState, blueprint: Blueprint
) -> tuple[Path, Path]:
    """The newer one's JSON and tensors; version 1 is older."""
    save(directory, state, blueprint, 1)
    path = save(directory, state, blueprint, 2)
    return path, path.with_name(read_info(path).tensors_name)


@pytest.mark.parametrize("which", ["json", "tensors"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "empty", "gone"])
def test_a_damaged_one_is_named_and_the_one_before_is_taken(
    tmp_path: Path, state: LearnerState, blueprint: Blueprint, which: str, damage: str
):
    files = dict(zip(("json", "tensors"), two_checkpoints(tmp_path, state, blueprint), strict=True))
    file = files[which]
    data = file.read_bytes()
    middle = len(data) // 2
    if damage == "gone":
        file.unlink()
    else:
        flipped = data[:middle] + bytes([data[middle] ^ 0x11]) + data[middle + 1 :]
        changed = {"flipped": flipped, "cut": data[:-9], "longer": data + b"\0", "empty": b""}
        file.write_bytes(changed[damage])
    found = choose_checkpoint(tmp_path, "last")
    assert found.info.version == 1
    assert len(found.refused) == (0 if (which, damage) == ("json", "gone") else 1)
    assert all("v0000000002" in text for text in found.refused)


def forge(path: Path, tensors: bytes, **changes: object) -> None:
    """Replaces the tensors, with the JSON made to agree: an attacker can do that."""
    import hashlib

    info = msgspec.structs.replace(
        read_info(path),
        sha256=hashlib.sha256(tensors).hexdigest(),
        num_bytes=len(tensors),
        **changes,
    )
    path.write_bytes(msgspec.json.encode(info.sealed()))
    path.with_name(info.tensors_name).write_bytes(tensors)


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_pickle_is_never_executed(tmp_path: Path, state: LearnerState, blueprint: Blueprint):
    import pickle

    mark = tmp_path / "executed"
    path = save(tmp_path / "checkpoints", state, blueprint, 1)
    plain = pickle.dumps(Bomb(mark))
    torch.save({"network": Bomb(mark)}, tmp_path / "zipped")
    size = read_info(path).num_bytes
    for bomb in (plain, plain.ljust(size, b"\0"), (tmp_path / "zipped").read_bytes()):
        forge(path, bomb)
        with pytest.raises(ConfigError):
            load_checkpoint(path, state)
        assert not mark.exists()
    pickle.loads(plain)  # noqa: S301 - the test's own
    assert mark.exists(), "the bomb would have worked"


def test_sizes_are_checked_before_anything_is_read(
    tmp_path: Path, state: LearnerState, blueprint: Blueprint
):
    """A sparse file of a terabyte costs nothing on disk and must cost nothing in memory."""
    path = save(tmp_path, state, blueprint, 1)
    info = msgspec.structs.replace(read_info(path), num_bytes=1 << 40)
    path.write_bytes(msgspec.json.encode(info.sealed()))
    with path.with_name(info.tensors_name).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match="cannot hold"):
        load_checkpoint(path, state)
    path.write_bytes(b"{" + b" " * (2 << 20) + b"}")
    with pytest.raises(ConfigError, match="larger than"):
        read_info(path)


def test_a_header_that_lies_is_refused(tmp_path: Path, state: LearnerState, blueprint: Blueprint):
    path = save(tmp_path, state, blueprint, 1)
    good = path.with_name(read_info(path).tensors_name).read_bytes()
    lies = {
        "header of 18446744073709551615": b"\xff" * 8 + good[8:],
        "header of 0": b"\0" * 8 + good[8:],
        "not a file of tensors": good[:8] + b"[" + good[9:],
    }
    for words, data in lies.items():
        forge(path, data)
        with pytest.raises(ConfigError, match=words):
            load_checkpoint(path, state)


def test_other_tensors_than_those_of_the_state_are_refused(
    tmp_path: Path, state: LearnerState, blueprint: Blueprint
):
    path = save(tmp_path, state, blueprint, 1)
    good = safetensors.torch.load_file(path.with_name(read_info(path).tensors_name))
    mean = good["optimizer.mean"]
    wrong = {
        "is missing": {k: v for k, v in good.items() if k != "optimizer.mean"},
        "is unknown": {**good, "../../etc/passwd": torch.zeros(1)},
        "F64": {**good, "optimizer.mean": mean.to(torch.float64)},
        r"F32 \(1,": {**good, "optimizer.mean": mean[None].contiguous()},
        "random generator": {**good, "generator": torch.zeros_like(good["generator"])},
    }
    before = parameters(state)
    for words, tensors in wrong.items():
        forge(path, safetensors.torch.save(tensors))
        with pytest.raises(ConfigError, match=words):
            load_checkpoint(path, state)
        if words != "random generator":
            assert all(torch.equal(before[k], v) for k, v in parameters(state).items()), words


def test_links_pipes_and_directories_are_no_checkpoints(
    tmp_path: Path, state: LearnerState, blueprint: Blueprint
):
    path = save(tmp_path, state, blueprint, 1)
    tensors = path.with_name(read_info(path).tensors_name)
    elsewhere = tmp_path / "elsewhere"
    tensors.rename(elsewhere)
    makers = (lambda: tensors.symlink_to(elsewhere), lambda: os.mkfifo(tensors), tensors.mkdir)
    for make in makers:
        make()
        with pytest.raises(ConfigError):
            verify(path)
        tensors.rmdir() if tensors.is_dir() and not tensors.is_symlink() else tensors.unlink()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("updates", 5, "its checksum does not match"),
        ("version", -1, "not a checkpoint"),
        ("counters", {"env_steps_consumed": -5}, "not a checkpoint"),
        ("counters", {"elapsed_s": 1e300}, "not a checkpoint"),
        ("sha256", "../../../etc/passwd", "not a checkpoint"),
        ("num_bytes", "many", "not a checkpoint"),
        ("schema_version", 1, "schema_version is 1"),
        ("schema_version", 99, "schema_version is 99"),
    ],
)
def test_a_json_that_lies_is_refused(
    tmp_path: Path, state: LearnerState, blueprint: Blueprint, key: str, value: object, words: str
):
    path = save(tmp_path, state, blueprint, 1)
    data = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({**data, key: value}))
    with pytest.raises(ConfigError, match=words):
        verify(path)


def test_a_checkpoint_under_another_name_is_refused(
    tmp_path: Path, state: LearnerState, blueprint: Blueprint
):
    path = save(tmp_path, state, blueprint, 1)
    path.rename(tmp_path / "v0000000009.json")
    with pytest.raises(ConfigError, match="says that it is version 1"):
        verify(tmp_path / "v0000000009.json")


def test_a_name_that_is_no_checkpoint_is_refused(tmp_path: Path):
    for name in ("v1.json", "v0000000001.json.bak", "x"):
        (tmp_path / name).write_text("{}")
        with pytest.raises(ConfigError, match="not the name"):
            checkpoint_file.read_info(tmp_path / name)
