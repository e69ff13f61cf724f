"""Hostile frames, YAML files and trace files: refused by name, whatever they hold.

A short search here, with the same inputs each time; `make fuzz` searches for as long as one likes,
guided by coverage, and what it finds is kept in `corpus/` and tried here each time.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config.config_file import load_experiment
from engine.errors import ConfigError, WireError
from engine.trace.reader import read_summary, read_table
from engine.trace.records import Ledger
from engine.wire import header
from tests.fuzz.fuzz_inputs import bounded
from tests.fuzz.fuzz_targets import (
    CODEC,
    CONNECTION,
    FRAMES,
    RECEIVER,
    TARGETS,
    choose_names,
    decode_frames,
    frames_of,
    open_sealed,
    read_deployment_file,
    read_trace_file,
    read_yaml_file,
    sealed_of,
)
from tests.fuzz.shared_memory import play_rings, read_spoilt_memory
from tests.helpers.paths import REPOSITORY
from tianji_cli.analysis.run import read_manifest
from tianji_cli.config.inventory import load_inventory
from tianji_cli.config.inventory_schema import expand_range

CORPUS = Path(__file__).with_name("corpus")


def search(num_inputs: int) -> settings:
    """The same inputs in the same order, each time."""
    return settings(
        deadline=None,
        max_examples=num_inputs,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@search(3000)
@given(data=st.binary(max_size=120))
def test_any_frames_are_decoded_or_refused(data: bytes, tmp_path: Path):
    decode_frames(data, tmp_path)


@search(1000)
@given(data=st.binary(max_size=120))
def test_any_sealed_message_is_opened_or_refused(data: bytes, tmp_path: Path):
    open_sealed(data, tmp_path)


@search(600)
@given(data=st.binary(max_size=120))
def test_any_order_of_steps_hands_over_each_rollout_once(data: bytes, tmp_path: Path):
    play_rings(data, tmp_path)


@search(1000)
@given(data=st.binary(max_size=120))
def test_anything_in_shared_memory_is_read_or_refused(data: bytes, tmp_path: Path):
    read_spoilt_memory(data, tmp_path)


@search(300)
@given(data=st.binary(max_size=120))
def test_any_trace_file_is_read_or_refused(data: bytes, tmp_path: Path):
    read_trace_file(data, tmp_path)


@search(60)
@given(data=st.binary(max_size=120))
def test_any_yaml_file_is_read_or_refused(data: bytes, tmp_path: Path):
    read_yaml_file(data, tmp_path)


@search(300)
@given(data=st.binary(max_size=120))
def test_any_deployment_of_a_stranger_is_refused(data: bytes, tmp_path: Path):
    read_deployment_file(data, tmp_path)


@search(1000)
@given(data=st.binary(max_size=120))
def test_no_name_that_a_host_says_leads_elsewhere(data: bytes, tmp_path: Path):
    choose_names(data, tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_found_before_is_tried_again(target: str, tmp_path: Path):
    inputs = sorted((CORPUS / target).iterdir())
    assert inputs, "the corpus is part of the checkout"
    for path in inputs:
        TARGETS[target](path.read_bytes(), tmp_path)


def test_the_mutations_reach_behind_the_first_check():
    """Half of simple programs change nothing, so that seeds themselves must be decoded."""
    decoded = set()
    for number in range(len(FRAMES)):
        (frame,) = frames_of(bytes([0, number]))
        try:
            decoded.add(type(CODEC.decode([frame])).__name__)
        except WireError:
            continue
    assert {"RolloutArrived", "WeightsArrived", "SamplesArrived", "Report", "Start"} <= decoded


def test_what_is_sealed_and_not_changed_is_decoded():
    decoded = set()
    for number in range(len(FRAMES)):
        frames = RECEIVER.open("actor-0", CONNECTION, sealed_of(bytes([0, number])))
        try:
            decoded.add(type(CODEC.decode(frames)).__name__)
        except WireError:
            continue
    assert {"RolloutArrived", "SamplesArrived", "Report"} <= decoded


def test_the_bounds_can_be_broken():
    with pytest.raises(AssertionError, match="bytes were allocated"), bounded((1000, 1), 10):
        bytearray(10_000)


def test_a_message_nested_too_deeply_is_refused():
    start = CODEC._encoder.encode({"type": "Start", "origin_ns": 1})
    nested = b"\x83" + start[1:] + b"\xa1x" + b"\x91" * 100_000 + b"\xc0"
    with pytest.raises(WireError, match="recursion"):
        CODEC.decode([header.pack_message_prefix("learner-0") + nested])


@pytest.mark.parametrize("part", ["{{p: *a{0}, q: *a{0}}}", "[*a{0}, *a{0}]"])
def test_aliases_that_stand_for_too_much_are_refused_at_once(tmp_path: Path, part: str):
    """Thirty lines that would be a thousand million values."""
    lines = ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {part.format(i - 1)}" for i in range(1, 30))]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    for load in (load_experiment, load_inventory):
        with bounded((2**23, 0), 0), pytest.raises(ConfigError, match="more than 50000 values"):
            load(path)


def test_ranges_of_hosts_multiply_before_they_are_written_out():
    with bounded((2**16, 0), 0), pytest.raises(ValueError, match="more than 1024 hosts"):
        expand_range("b" + "[1-9]" * 12)
    assert expand_range("b[1-2]x[09-10]y") == ["b1x09y", "b1x10y", "b2x09y", "b2x10y"]
    for text in ("b[1-[1-2]]", "b]1-2[", "b[1-2][", "b[2-1]"):
        with pytest.raises(ValueError, match=r"bracket|backwards"):
            expand_range(text)


DEEP = b"[" * 100_000


def test_files_of_a_run_nested_too_deeply_are_refused(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    row = b'{"table":"ledger","t_s":null,"collected":4,"consumed":2,"dropped":1,"in_flight":1'
    for line in (DEEP, row + b',"x":' + DEEP):
        path.write_bytes(line + b"\n")
        with pytest.raises(ConfigError, match="not a row"):
            read_table(tmp_path, Ledger)
    for read in (read_summary, read_manifest):
        path.write_bytes(b'{"schema_version":1,"x":' + DEEP)
        with pytest.raises(ConfigError, match="not a"):
            read(path)


def test_make_fuzz_goes_through_every_target():
    (names,) = re.findall(r"for target in (.*); do", (REPOSITORY / "Makefile").read_text())
    assert names.split() == list(TARGETS)
