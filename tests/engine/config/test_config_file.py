"""Files and settings: what is read, and what an error says about what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.algorithms.registry import read_config
from engine.config.config_file import (
    Document,
    apply_settings,
    convert,
    load_experiment,
    overlaid_experiment,
    parse_yaml,
)
from engine.errors import ConfigError
from engine.graph.policy import built_in_policies
from engine.spec import Experiment
from tests.helpers.paths import REPOSITORY

SHIPPED = sorted((REPOSITORY / "experiments").glob("*.yaml"))

EXPERIMENT = """\
name: tiny
env:
  id: CartPole-v1
  num_envs: 4
algorithm: {name: ppo, learning_rate: 1e-3}
staleness:
  mode: block
stop: {env_steps: 1000}
"""


def write(tmp_path: Path, text: str = EXPERIMENT) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(tmp_path: Path, *settings: str, text: str = EXPERIMENT) -> Experiment:
    return load_experiment(write(tmp_path, text), settings)[0]


def refused(tmp_path: Path, *settings: str, text: str = EXPERIMENT) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, *settings, text=text)
    return error.value


def with_staleness(section: str) -> str:
    return EXPERIMENT.replace("staleness:\n  mode: block", f"staleness: {section}")


def parse(text: str) -> Document:
    return parse_yaml(text, source="file.yaml")


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", ".001", "0.001", "+1e-3"])
def test_every_way_to_write_a_small_number_is_a_number(text: str):
    assert parse(f"a: {text}").data == {"a": 0.001}


def test_whole_numbers_and_special_ones_are_what_they_look_like():
    data = parse("{a: 10, b: -3, c: 1., d: .inf, e: 1e3}").data
    assert data == {"a": 10, "b": -3, "c": 1.0, "d": float("inf"), "e": 1000.0}
    assert isinstance(data["a"], int)


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "y", "NO", "1e", "v1", "1.2.3", "e3"])
def test_words_that_yaml_1_1_would_change_stay_words(word: str):
    assert parse(f"a: {word}").data == {"a": word}


def test_only_true_and_false_are_booleans_and_null_is_null():
    assert parse("{a: true, b: False, c: null, d: ~}").data == {
        "a": True,
        "b": False,
        "c": None,
        "d": None,
    }


def test_a_key_given_twice_names_both_lines():
    with pytest.raises(ConfigError) as error:
        parse("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n")
    assert error.value.where == "file.yaml:5"
    assert error.value.what == "the key 'c' stands here and on line 3"


def test_the_same_key_in_two_sections_is_no_duplicate():
    assert parse("a: {x: 1}\nb: {x: 2}").data == {"a": {"x": 1}, "b": {"x": 2}}


@pytest.mark.parametrize(
    ("text", "what", "where"),
    [
        ("", "the file is empty", "file.yaml"),
        ("- a\n- b\n", "holds a list", "file.yaml"),
        ("just words", "holds a str", "file.yaml"),
        ("a: 1\nb: [1, 2\n", "not valid YAML", "file.yaml:3"),
        ("a: !!python/object:os.system {}\n", "not valid YAML", "file.yaml:1"),
        ("a: &x {b: *x}\n", "not valid YAML", "file.yaml"),
    ],
)
def test_what_is_no_mapping_is_refused(text: str, what: str, where: str):
    with pytest.raises(ConfigError) as error:
        parse(text)
    assert what in error.value.what
    assert error.value.where == where


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such file") as error:
        load_experiment(tmp_path / "missing.yaml")
    assert error.value.where == str(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_experiment(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: b\xf6x\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_experiment(tmp_path / "latin.yaml")


def test_an_unknown_key_names_file_line_path_and_the_nearest_known_key(tmp_path: Path):
    error = refused(tmp_path, text=EXPERIMENT.replace("num_envs", "num_env"))
    assert error.what == "unknown key 'num_env'"
    assert error.where == f"{tmp_path / 'tiny.yaml'}:4: env.num_env"
    assert error.fix == "did you mean 'num_envs'?"


def test_an_unknown_key_far_from_all_others_lists_them(tmp_path: Path):
    error = refused(tmp_path, text=EXPERIMENT + "zzz: 1\n")
    assert error.where == f"{tmp_path / 'tiny.yaml'}:9: zzz"
    assert error.fix.startswith(
        "known: actor, actors, agents, algorithm, checkpoint, env, evaluation"
    )


def test_a_missing_key_names_its_section(tmp_path: Path):
    error = refused(tmp_path, text=EXPERIMENT.replace("  id: CartPole-v1\n", ""))
    assert error.what == "the key 'id' is missing"
    assert error.where == f"{tmp_path / 'tiny.yaml'}:2: env"
    error = refused(tmp_path, text=EXPERIMENT.replace("name: tiny\n", ""))
    assert error.what == "the key 'name' is missing"
    assert error.where == str(tmp_path / "tiny.yaml")


@pytest.mark.parametrize(
    ("old", "new", "what", "where"),
    [
        ("num_envs: 4", "num_envs: four", "expected `int`, got `str`", ":4: env.num_envs"),
        ("num_envs: 4", "num_envs: 0", "expected `int` >= 1", ":4: env.num_envs"),
        ("num_envs: 4", "num_envs: 2.5", "expected `int`, got `float`", ":4: env.num_envs"),
        ("mode: block", "mode: blok", "invalid enum value 'blok'", ":7: staleness.mode"),
        ("id: CartPole-v1", "id: [a]", "expected `str`, got `array`", ":3: env.id"),
        ("{env_steps: 1000}", "7", "expected `mapping`, got `int`", ":8: stop"),
    ],
)
def test_a_wrong_type_or_range_names_the_line(
    tmp_path: Path, old: str, new: str, what: str, where: str
):
    error = refused(tmp_path, text=EXPERIMENT.replace(old, new))
    assert what in error.what
    assert error.where == f"{tmp_path / 'tiny.yaml'}{where}"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("staleness.mode=blok", "one of: block, correct, drop, fixed, unbounded"),
        ("learner.compile=true", ""),
        ("network.activation=gelu", "one of: relu, tanh"),
        ("stop.judge=me", "one of: evaluation, training"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_ones(tmp_path: Path, setting: str, words: str):
    assert refused(tmp_path, setting).fix == words


def test_settings_win_over_the_file_and_later_ones_over_earlier(tmp_path: Path):
    experiment = load(tmp_path, "env.num_envs=2", "seed=3", "seed=4", "env.id=Other-v0")
    assert experiment.env.num_envs == 2
    assert experiment.env.id == "Other-v0"
    assert experiment.seed == 4


def test_a_setting_may_open_a_section_that_the_file_does_not_have(tmp_path: Path):
    experiment = load(tmp_path, "checkpoint.keep=7", "network={hidden_sizes: [3]}")
    assert experiment.checkpoint.keep == 7
    assert experiment.network.hidden_sizes == (3,)


def test_a_setting_may_open_a_section_that_was_left_out_by_null(tmp_path: Path):
    """As the recorded experiment of a run without evaluation has it."""
    whole, _ = overlaid_experiment(load(tmp_path), "run x", ["evaluation.episodes=20"])
    assert whole.evaluation is not None
    assert whole.evaluation.episodes == 20
    text = EXPERIMENT + "evaluation: null\ncheckpoint:\n"
    experiment = load(tmp_path, "evaluation.every_s=3", "checkpoint.keep=2", text=text)
    assert experiment.evaluation is not None
    assert experiment.checkpoint.keep == 2


def test_null_switches_a_rule_off(tmp_path: Path):
    experiment = load(
        tmp_path, "stop.env_steps=null", "stop.seconds=1e1", "checkpoint.every_s=null"
    )
    assert experiment.stop.env_steps is None
    assert experiment.stop.seconds == 10.0
    assert experiment.checkpoint.every_s is None


def test_settings_keep_what_follows_the_first_equals_sign(tmp_path: Path):
    assert load(tmp_path, "name=a=b").name == "a=b"


def test_settings_do_not_change_the_document_that_they_are_laid_over():
    document = parse("a: {b: 1}")
    assert apply_settings(document, ["a.b=2"]).data == {"a": {"b": 2}}
    assert document.data == {"a": {"b": 1}}


@pytest.mark.parametrize("setting", ["seed", "=3", "env.=3", ".id=3", "", "env..id=3"])
def test_a_setting_of_another_form_is_refused(tmp_path: Path, setting: str):
    error = refused(tmp_path, setting)
    assert error.what == "not of the form KEY=VALUE"
    assert error.where == f"-s {setting}"


def test_a_setting_cannot_go_through_a_value(tmp_path: Path):
    error = refused(tmp_path, "name.first=x")
    assert error.what == "'name' is a value, not a section"


def test_a_setting_that_is_no_yaml_is_refused(tmp_path: Path):
    assert "not valid YAML" in refused(tmp_path, "seed=[1").what


def test_a_wrong_setting_is_named_with_its_key(tmp_path: Path):
    error = refused(tmp_path, "env.num_envz=3")
    assert error.what == "unknown key 'num_envz'"
    assert error.where.endswith("env.num_envz")
    assert error.fix == "did you mean 'num_envs'?"
    assert refused(tmp_path, "actors=0").where.endswith("actors")


@pytest.mark.parametrize(
    ("settings", "what", "key"),
    [
        (["algorithm.name=null"], "an algorithm needs a name", "algorithm.name"),
        (["algorithm={discount: 0.9}"], "an algorithm needs a name", "algorithm.name"),
        (["stop.env_steps=null"], "no stop rule is left, so the run would never end", "stop"),
        (
            ["env.squash_actions=true", "env.scale_actions=false"],
            "squashed actions are in units of a range",
            "env.scale_actions",
        ),
        (["stop.return_threshold=.inf"], "inf can never be reached", "stop.return_threshold"),
        (["stop.return_threshold=-.inf"], "is reached at once", "stop.return_threshold"),
        (["stop.return_threshold=.nan"], "nan can never be reached", "stop.return_threshold"),
        (["stop.seconds=.inf"], "<= 1e+300", "stop.seconds"),
        (["env.step_latency_ms=.inf"], "<= 1e+300", "env.step_latency_ms"),
        (["checkpoint.every_s=.inf"], "<= 1e+300", "checkpoint.every_s"),
    ],
)
def test_rules_across_fields_name_the_key(tmp_path: Path, settings: list[str], what: str, key: str):
    error = refused(tmp_path, *settings)
    assert what in error.what
    assert error.where.endswith(key)


@pytest.mark.parametrize(
    ("section", "settings", "key", "fix"),
    [
        ("{mode: fixed, max_lag: 0}", [], "max_lag", "set staleness.lag instead"),
        ("{mode: block, lag: 3}", [], "lag", "set staleness.max_lag instead"),
        ("{lag: 3}", [], "lag", "set staleness.max_lag instead"),
        ("{mode: unbounded, max_lag: 2}", [], "max_lag", "leave it out"),
        ("{mode: block, max_lag: 1}", ["lag=3"], "lag", "set staleness.max_lag instead"),
        ("{mode: fixed, lag: 1}", ["max_lag=3"], "max_lag", "set staleness.lag instead"),
        ("{mode: fixed, max_lag: auto}", [], "max_lag", "set staleness.lag instead"),
        ("{mode: correct, max_lag: auto}", [], "max_lag", "leave it out"),
        ("{mode: unbounded}", ["max_lag=auto"], "max_lag", "leave it out"),
    ],
)
def test_a_bound_that_the_mode_does_not_read_is_refused(
    tmp_path: Path, section: str, settings: list[str], key: str, fix: str
):
    words = [f"staleness.{setting}" for setting in settings]
    error = refused(tmp_path, *words, text=with_staleness(section))
    assert error.what.endswith("does not read it")
    assert error.where.endswith(f"staleness.{key}")
    assert error.where.startswith("-s" if settings else str(tmp_path))
    assert error.fix == fix


def test_a_setting_of_the_mode_leaves_the_bound_of_the_files_mode_alone(tmp_path: Path):
    text = with_staleness("{mode: block, max_lag: 3}")
    changed = ("staleness.mode=fixed", "staleness.lag=0")
    assert load(tmp_path, *changed, text=text).staleness.bound == 0
    assert "max_lag" in refused(tmp_path, "staleness={mode: fixed, max_lag: 0}").where
    recorded, _ = overlaid_experiment(load(tmp_path, text=text), "run x", changed)
    assert recorded.staleness.bound == 0


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        ("{max_lag: 2, least_ess: 0.4}", []),
        ("{max_lag: auto}", ["max_lag=2", "least_ess=0.4"]),
        ("{mode: fixed, least_ess: 0.4}", []),
    ],
)
def test_a_floor_of_the_sample_size_is_refused_where_no_bound_moves(
    tmp_path: Path, section: str, settings: list[str]
):
    words = [f"staleness.{setting}" for setting in settings]
    error = refused(tmp_path, *words, text=with_staleness(section))
    assert error.where.endswith("staleness.least_ess")
    assert error.fix == "set staleness.max_lag=auto, or leave it out"


def test_an_adaptive_bound_is_read_and_a_setting_may_give_a_number_instead(tmp_path: Path):
    text = with_staleness("{max_lag: auto, least_ess: 0.4}")
    staleness = load(tmp_path, text=text).staleness
    assert (staleness.is_adaptive, staleness.first_bound, staleness.bound) == (True, 1, 16)
    assert not load(tmp_path, "staleness.max_lag=3", text=text).staleness.is_adaptive
    assert not load(tmp_path, "staleness.mode=unbounded", text=text).staleness.is_adaptive
    error = refused(tmp_path, "staleness.max_lag=automatic")
    assert (error.where, error.fix) == ("-s staleness.max_lag", "one of: auto")


def test_a_file_may_have_all_keys_with_their_defaults(tmp_path: Path):
    """As the experiments that benchmarks write have."""
    text = with_staleness("{mode: block, max_lag: 3, lag: 1}")
    assert load(tmp_path, text=text).staleness.bound == 3


def test_a_rule_across_fields_names_the_line_of_the_file(tmp_path: Path):
    error = refused(tmp_path, text=EXPERIMENT.replace("env_steps: 1000", "env_steps: null"))
    assert error.where == f"{tmp_path / 'tiny.yaml'}:8: stop"


def test_a_document_is_converted_to_what_it_describes(tmp_path: Path):
    experiment = convert(parse(EXPERIMENT), Experiment)
    assert experiment == load(tmp_path)
    assert experiment.algorithm == {"name": "ppo", "learning_rate": 0.001}
    assert experiment.algorithm_name == "ppo"
    assert experiment.actors == 2


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_experiment_is_complete(path: Path):
    experiment, _ = load_experiment(path)
    assert experiment.name == path.stem
    assert experiment.policy in built_in_policies()
    read_config(experiment)


def test_there_are_shipped_experiments():
    assert SHIPPED
