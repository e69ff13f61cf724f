"""`init_from: RUN[@checkpoint]`: which run and checkpoint it means, and what is used of them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy

from engine.errors import ConfigError
from engine.trace.checkpoint_choice import Which
from engine.trace.warm_start import WantedTensor, match
from tests.helpers.engine.checkpoint_files import tensors_file, write_checkpoint
from tests.helpers.fake_node import FakeNode
from tests.helpers.paths import REPOSITORY
from tianji_cli.commands.run_request import UpRequest, load
from tianji_cli.config.inventory import Host
from tianji_cli.runs.manifest import DECIDING
from tianji_cli.runs.resume import find_resume_point
from tianji_cli.runs.warm_start import find_weights, split_name
from tianji_cli.storage.consent import NOBODY, Consent
from tianji_cli.storage.ownership import checksum_of, note_own
from tianji_cli.storage.run_dir import RunPaths

FORMER = REPOSITORY / "tests" / "recorded" / "finished"
"""PPO on CartPole with a hidden layer of 8, of a former release."""
HERE = {
    "policy_head.weight": WantedTensor((2, 8)),
    "policy_head.bias": WantedTensor((2,)),
    "value_head.weight": WantedTensor((1, 99)),
}


def deciding(run: Path) -> str:
    """What says whose a run is."""
    return checksum_of((run / "manifest.json").read_bytes(), only=DECIDING)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results directory with a run `finished` that was not started here."""
    shutil.copytree(FORMER, tmp_path / "results" / "finished")
    return tmp_path / "results"


@pytest.fixture
def own(results: Path) -> Path:
    """The same, of a run that was started here."""
    note_own(deciding(results / "finished"))
    return results


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("day1", ("day1", "last")),
        ("day1@last", ("day1", "last")),
        ("day1@best", ("day1", "best")),
        ("results/day1@120", ("results/day1", 120)),
        ("a@b@7", ("a@b", 7)),
    ],
)
def test_a_name_is_a_run_and_a_checkpoint(text: str, parts: tuple[str, Which]):
    assert split_name(text) == parts


def test_a_directory_may_have_an_at_in_its_name(results: Path, monkeypatch: pytest.MonkeyPatch):
    (results / "finished").rename(results / "me@work")
    monkeypatch.chdir(results)
    assert split_name("me@work") == ("me@work", "last")
    assert split_name("me@work@best") == ("me@work", "best")


def test_weights_are_found_by_prefix_and_by_path(own: Path):
    for text in ("fin", "finished@8", str(own / "finished"), f"{own / 'finished'}@best"):
        source = find_weights(own, text, NOBODY)
        assert (source.run_id, source.chosen.info.version) == ("finished", 8)
    assert source.name == "finished, version 8, return unknown"
    assert source.tensors["policy_head.weight"].shape == (2, 8)
    assert not any(name.startswith(("optimizer", "network")) for name in source.tensors)


def test_exactly_what_fits_is_written_and_shipped(own: Path, tmp_path: Path):
    source = find_weights(own, "finished", NOBODY)
    taken = match(source.tensors, HERE)
    weights = source.take(taken)
    paths = RunPaths(tmp_path)
    weights.copy_to(paths)
    assert paths.initial_weights.stat().st_size == weights.warm_start.num_bytes
    found = safetensors.numpy.load_file(paths.initial_weights)
    whole = safetensors.numpy.load_file(next((own / "finished/checkpoints").glob("*.safetensors")))
    assert set(found) == {"policy_head.weight", "policy_head.bias"}
    for name, values in found.items():
        assert np.array_equal(values, whole[f"network.{name}"])
    node = FakeNode(Host(name="a", connection="ssh", address="192.0.2.9", ports=None), {})
    weights.ship(node, "/runs/r", ["buffer-0", "learner-0"])
    assert node.files == {"/runs/r/initial_weights.safetensors": weights.data}
    assert weights.warm_start.run_id == "finished"
    assert weights.warm_start.checkpoint == "v0000000008.json"


def test_what_is_taken_and_what_is_not_is_said(own: Path):
    source = find_weights(own, "finished", NOBODY)
    lines = source.words(match(source.tensors, HERE))
    assert lines[0] == (
        "starts with weights of finished, version 8, return unknown:"
        " 2 of 3 tensors, 18 of 117 parameters"
    )
    assert lines[1] == ("initial values instead: value_head.weight is [1, 99] here, [1, 8] there")
    assert lines[2].startswith("not used of that run: ")


def test_nothing_that_fits_is_an_error_with_the_reasons(own: Path):
    source = find_weights(own, "finished", NOBODY)
    for here in ({"policy_head.weight": WantedTensor((2, 64))}, {"other": WantedTensor((3,))}):
        with pytest.raises(ConfigError, match="no weights of finished, version 8") as caught:
            source.take(match(source.tensors, here))
        assert caught.value.where == "init_from"
        assert "(ppo on CartPole-v1) fit this network" in caught.value.what
    assert "other is not in that run" in caught.value.what


def test_checkpoints_that_are_not_there_are_an_error(own: Path):
    with pytest.raises(ConfigError, match="no checkpoint of version 9"):
        find_weights(own, "finished@9", NOBODY)
    with pytest.raises(ConfigError, match="no such run"):
        find_weights(own, "nobody@best", NOBODY)
    with pytest.raises(ConfigError, match="'bets' names no checkpoint") as caught:
        find_weights(own, "finished@bets", NOBODY)
    assert caught.value.where == "init_from"
    shutil.rmtree(own / "finished/checkpoints")
    (own / "finished/deployment.json").write_text("{}")
    with pytest.raises(ConfigError, match="no checkpoint is there") as caught:
        find_weights(own, "finished", NOBODY)
    assert "tianji fetch finished" in caught.value.fix


def test_a_checkpoint_that_changes_after_it_was_chosen_is_refused(own: Path):
    source = find_weights(own, "finished", NOBODY)
    taken = match(source.tensors, HERE)
    (tensors,) = (own / "finished/checkpoints").glob("*.safetensors")
    tensors.unlink()
    with pytest.raises(ConfigError):
        source.take(taken)


def test_a_header_that_lies_about_sizes_is_refused_before_anything_is_read(own: Path):
    """An attacker can make all checksums agree."""
    good = tensors_file({"network.policy_head.weight": np.ones((4, 8), np.float32)})
    lie = good.replace(b"[4, 8]", b"[2, 8]")
    assert lie != good
    write_checkpoint(own / "finished/checkpoints", 9, tensors=lie)
    source = find_weights(own, "finished@9", NOBODY)
    taken = match(source.tensors, {"policy_head.weight": WantedTensor((2, 8))})
    assert taken.has_learnt
    with pytest.raises(ConfigError, match=r"no whole policy_head\.weight"):
        source.take(taken)


# ---------------------------------------------------------------- whose run it is


def test_weights_of_a_run_that_was_not_started_here_are_shown_first(results: Path):
    with pytest.raises(ConfigError, match="you did not start this run here") as caught:
        find_weights(results, "finished", NOBODY)
    assert "ppo on CartPole-v1" in caught.value.what
    assert "version 8" in caught.value.what
    assert "--trust" in caught.value.fix


def test_agreeing_to_weights_is_no_agreement_to_what_the_run_names(results: Path):
    agreed = Consent(is_given=True)
    assert find_weights(results, "finished", agreed).run_id == "finished"
    assert find_weights(results, "finished", NOBODY).run_id == "finished", "it is asked once"
    with pytest.raises(ConfigError, match="you did not start this run here"):
        find_resume_point(results, "finished", NOBODY)
    write_checkpoint(results / "finished/checkpoints", 9, 1.0)
    with pytest.raises(ConfigError, match="you did not start this run here"):
        find_weights(results, "finished@9", NOBODY)


# ---------------------------------------------------------------- as a key of an experiment


def request(results: Path, *settings: str, resume: str | None = None) -> UpRequest:
    limit = ("stop.env_steps=9000", "stop.return_threshold=null")
    return UpRequest(None, None, (*limit, *settings), results, None, resume=resume)


def test_the_key_is_looked_up_in_the_results_directory(own: Path):
    loaded = load(request(own, "init_from=fin@best"))
    assert loaded.weights_source is not None
    assert loaded.weights_source.run_id == "finished"
    assert load(request(own)).weights_source is None
    assert load(request(own, "init_from=null")).weights_source is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nobody", r"-s init_from: .*no such run: 'nobody'"),
        ("finished@x", r"-s init_from: 'x' names no checkpoint"),
        ('""', r"-s init_from: .*length"),
        ("7", r"-s init_from: "),
    ],
)
def test_an_error_names_the_key(own: Path, text: str, words: str):
    with pytest.raises(ConfigError) as caught:
        load(request(own, f"init_from={text}"))
    assert re.search(words, str(caught.value)), caught.value


def test_a_resumed_run_goes_on_with_its_own_weights(own: Path):
    """Its experiment can have the key from the start; asked for explicitly, it is a mistake."""
    manifest = own / "finished/manifest.json"
    document = msgspec.json.decode(manifest.read_bytes())
    document["experiment"]["init_from"] = "day0@best"
    manifest.write_bytes(msgspec.json.encode(document))
    note_own(deciding(own / "finished"))
    loaded = load(request(own, resume="finished"))
    assert loaded.resume_point is not None
    assert loaded.weights_source is None
    assert loaded.plan.experiment.init_from == "day0@best"
    assert any("init_from is not used" in note for note in loaded.notes)
    with pytest.raises(ConfigError, match="a resumed run goes on with the weights") as caught:
        load(request(own, "init_from=finished", resume="finished"))
    assert caught.value.where == "-s init_from"
    load(request(own, "init_from=null", resume="finished"))
