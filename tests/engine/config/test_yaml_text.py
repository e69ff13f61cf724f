"""What a text means in YAML 1.2 (core schema), where PyYAML by itself reads YAML 1.1."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from engine.algorithms.registry import read_config
from engine.config.config_file import apply_settings, convert, load_experiment, parse_yaml
from engine.config.yaml_text import parse_text
from engine.errors import ConfigError
from engine.spec import Experiment
from tianji_cli.config.inventory import load_inventory

EXPERIMENT = """\
name: tiny
env: {id: CartPole-v1}
algorithm: {name: ppo}
stop: {env_steps: 1000}
"""
DECIMAL = {"010": 10, "0100000": 100_000, "0022": 22, "-07": -7, "+1": 1, "08": 8, "00": 0}
OTHER_BASES = {"0o10": 8, "0x1F": 31, "0xff": 255, "!!int 0x10": 16, "!!int 010": 10}
FLOATS = {
    ".5": 0.5,
    "1.": 1.0,
    "1e3": 1000.0,
    "1.e3": 1000.0,
    "-.5e-3": -0.0005,
    "010.5": 10.5,
    "12e03": 12_000.0,
    "-.INF": -math.inf,
    "!!float 3": 3.0,
}
STRINGS = ("0b11", "0B1", "1:30", "190:20:30", "1:30.5", "1_000", "1_0.5", "0x_1", "0o8", "-0x1")
STRINGS += (
    "2024-01-01",
    "2001-12-14t21:59:43.10-05:00",
    "2024-99-99",
    "=",
    "yes",
    "No",
    "on",
    "OFF",
)
STRINGS += ("y", "n", "nUll", "tRUE", "1e", "0x", ".", "-.nan", "1.2.3", "<", "!!str 010", "! 010")
STRINGS += ("'010'", '"1e3"', "'~'", "+.5.", "१")


def value_of(text: str) -> object:
    return parse_text(f"a: {text}", "f").value["a"]


@pytest.mark.parametrize(("text", "value"), [*DECIMAL.items(), *OTHER_BASES.items()])
def test_integers_are_decimal_unless_they_say_otherwise(text: str, value: int):
    found = value_of(text)
    assert (type(found), found) == (int, value)
    assert parse_text(text, "-s a").value == value


@pytest.mark.parametrize(("text", "value"), FLOATS.items())
def test_floats(text: str, value: float):
    found = value_of(text)
    assert (type(found), found) == (float, value)


def test_every_way_to_write_nan_and_null():
    assert all(math.isnan(float(str(value_of(text)))) for text in (".nan", ".NaN", ".NAN"))
    assert [value_of(text) for text in ("~", "null", "Null", "NULL", "", "!!null ~")] == [None] * 6


@pytest.mark.parametrize("text", STRINGS)
def test_what_only_yaml_1_1_knows_is_text(text: str):
    plain = text.removeprefix("!!str ").removeprefix("! ").strip("'\"")
    assert value_of(text) == plain


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("!!int 1_0", "'1_0' is no int"),
        ("!!int 1:30", "is no int"),
        ("!!bool yes", "is no bool"),
        ("!!null x", "is no null"),
        ("!!float 1:30.0", "is no float"),
        ("!!timestamp 2024-01-01", "tag"),
        ("!!binary aGk=", "tag"),
        ("!!set {a}", "tag"),
        ("!!omap [a: 1]", "tag"),
        ("!!map [a]", "tag"),
        ("!!python/name:os.system x", "tag"),
        ("!own x", "tag"),
        ("{<<: {b: 1}}", "merge keys"),
        ("{<<: [{b: 1}, {c: 1}]}", "merge keys"),
        ("{1: 2}", 'expected `str`, got `int` for a key: write "1"'),
        ("{010: 2}", "got `int` for a key"),
        ("{true: 2}", "got `bool` for a key"),
        ("{~: 2}", "got `null` for a key"),
        ("{[b]: 2}", "cannot be a key"),
        ("{b: 1, 'b': 2}", "the key 'b' stands here and on line 2"),
        ("{b: 1, ! b: 2}", "the key 'b' stands here"),
        ("18446744073709551616", "64 bits"),
        ("-9223372036854775809", "64 bits"),
        ("9" * 5000, "64 bits"),
        ("0x" + "f" * 5000, "64 bits"),
        ("1e999", "larger than any"),
        ("[" * 500, "levels deep"),
        ("*missing", "alias"),
        ('"\x07"', "U+0007"),
        ('"b\u2028c"', "U+2028"),
        ("b\x85c", "U+0085"),
        ('"\\ud83d\\ude00"', "half a character"),
    ],
)
def test_what_no_configuration_can_hold_is_refused_with_its_line(text: str, what: str):
    with pytest.raises(ConfigError) as error:
        parse_text(f"first: 1\na: {text}\n", "f")
    assert what in error.value.what
    assert error.value.where.split(": ")[0] == "f:2"


@pytest.mark.parametrize("text", ["%YAML 1.1\n---\na: 010\n", "a: 1\n---\nb: 2\n"])
def test_another_version_or_a_second_document_is_refused(text: str):
    with pytest.raises(ConfigError):
        parse_text(text, "f")


def test_aliases_stand_for_what_they_name():
    assert parse_text("a: &x {b: 010}\nc: *x\n", "f").value == {"a": {"b": 10}, "c": {"b": 10}}


def test_a_wrong_entry_of_a_list_is_named_with_its_line():
    text = f"{EXPERIMENT}network:\n  hidden_sizes:\n    - 64\n    - 1_0\n"
    with pytest.raises(ConfigError) as error:
        convert(parse_yaml(text, source="f"), Experiment)
    assert error.value.where == "f:8: network.hidden_sizes.1"


@pytest.mark.parametrize(
    ("setting", "value"), [("1e6", 1_000_000), ("2.5e5", 250_000), ("10.0", 10), ("0100", 100)]
)
def test_a_whole_float_may_stand_for_an_integer(tmp_path: Path, setting: str, value: int):
    path = tmp_path / "x.yaml"
    path.write_text(EXPERIMENT)
    settings = [f"stop.env_steps={setting}", f"algorithm.num_epochs={setting}", f"actors={setting}"]
    if value > 1000:
        settings.pop()
    experiment, _ = load_experiment(path, settings)
    assert (type(experiment.stop.env_steps), experiment.stop.env_steps) == (int, value)
    assert getattr(read_config(experiment), "num_epochs", None) == value


@pytest.mark.parametrize("setting", ["1.5", "1e300", "1e16", "1_000", "1:30", ".nan", ".inf"])
def test_what_is_not_whole_is_refused_where_an_integer_belongs(tmp_path: Path, setting: str):
    path = tmp_path / "x.yaml"
    path.write_text(EXPERIMENT)
    with pytest.raises(ConfigError) as error:
        load_experiment(path, [f"stop.env_steps={setting}"])
    assert error.value.where == "-s stop.env_steps"


def test_a_whole_float_stays_one_where_floats_belong():
    document = apply_settings(parse_yaml(EXPERIMENT, source="f"), ["env.kwargs={x: 1e3}"])
    assert type(convert(document, Experiment).env.kwargs["x"]) is float


@pytest.mark.parametrize("key", ["algorithm.learning_rate", "env.kwargs.gravity"])
@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_what_messages_cannot_hold_is_refused(tmp_path: Path, key: str, value: str):
    """JSON has no infinity: a role would be told `null`."""
    path = tmp_path / "x.yaml"
    path.write_text(EXPERIMENT)
    with pytest.raises(ConfigError, match="finite") as error:
        load_experiment(path, [f"{key}={value}"])
    assert error.value.where == f"-s {key}"


def test_a_boolean_among_environment_variables_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "hosts.yaml"
    path.write_text("hosts:\n  box:\n    env: {A: x, B: true}\n")
    with pytest.raises(ConfigError) as error:
        load_inventory(path)
    assert error.value.where == f"{path}:3: hosts.box.env.B"


def test_numbers_of_an_inventory(tmp_path: Path):
    path = tmp_path / "hosts.yaml"
    path.write_text(
        "defaults: {env: {D: 0.50}}\n"
        "hosts:\n"
        "  box:\n"
        "    port: 0022\n"
        "    cores: 010\n"
        "    env: {UMASK: 0077, RATE: 1e3, WORD: on, TEXT: '010'}\n"
    )
    host = load_inventory(path).hosts[0]
    assert (host.port, host.cores) == (22, 10)
    assert host.env == {
        "D": "0.50",
        "UMASK": "0077",
        "RATE": "1e3",
        "WORD": "on",
        "TEXT": "010",
    }
