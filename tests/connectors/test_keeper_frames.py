"""Frames between this program and a keeper, and what the keeper may be made of."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tianji_cli.connectors.keeper
from tianji_cli.connectors.keeper.frames import (
    MAX_FRAME_BYTES,
    WINDOW_BYTES,
    Consumed,
    Decoder,
    FrameError,
    encode,
)
from tianji_cli.connectors.piped.program import keeper_program

MODULES = sorted(Path(tianji_cli.connectors.keeper.__file__).parent.glob("*.py"))
ANY_TEXT = st.text(st.characters(exclude_categories=()))
HEADERS = st.fixed_dictionaries({"id": st.integers(), "path": ANY_TEXT | st.none()})
FRAMES = st.lists(st.tuples(HEADERS, st.binary(max_size=50)), max_size=4)


@given(FRAMES, st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    frames: list[tuple[dict[str, object], bytes]], sizes: list[int]
) -> None:
    data = b"".join(encode(header, body) for header, body in frames)
    decoder, found, number = Decoder(), [], 0
    while data:
        size = sizes[number % len(sizes)]
        found += decoder.feed(data[:size])
        data, number = data[size:], number + 1
    assert found == frames


@given(st.binary())
def test_a_path_of_any_bytes_is_told(path: bytes) -> None:
    header = {"path": path.decode("utf-8", "surrogateescape")}
    ((found, _),) = Decoder().feed(encode(header))
    assert found["path"].encode("utf-8", "surrogateescape") == path


@given(st.binary())
def test_no_bytes_are_more_than_refused(data: bytes) -> None:
    try:
        found = Decoder().feed(data)
    except FrameError:
        return
    assert all(isinstance(header, dict) for header, _ in found)


@pytest.mark.parametrize(
    "data",
    [
        b"Welcome to the cluster\n",
        encode({})[:4] + (MAX_FRAME_BYTES + 1).to_bytes(4, "big"),
        b"\0\0\0\2\0\0\0\0[]",
        b"\0\0\0\2\0\0\0\0{]",
    ],
    ids=["words", "too large", "no object", "no JSON"],
)
def test_what_is_no_frame_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(FrameError):
        Decoder().feed(data)


@given(st.lists(st.integers(0, WINDOW_BYTES)))
def test_all_that_was_consumed_is_reported_but_a_quarter_of_a_window(sizes: list[int]) -> None:
    """So whoever sends always has room again, once everything was consumed."""
    consumed = Consumed()
    reported = [consumed.add(size) for size in sizes]
    assert 0 <= sum(sizes) - sum(reported) < WINDOW_BYTES // 4


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_any_python_from_3_8_on_can_be_a_keeper(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    for node in ast.walk(tree):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            assert name is not None
            is_own = name.startswith("tianji_cli.connectors.keeper.")
            assert is_own or name.partition(".")[0] in sys.stdlib_module_names, name


def test_all_modules_are_sent() -> None:
    source = keeper_program(None).source.decode()
    for path in MODULES:
        assert path.stem == "__init__" or f"keeper.{path.stem}'" in source
