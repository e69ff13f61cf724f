"""Packed rollouts: every bit comes back, images shrink tenfold, and nothing else is unpacked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import WireError
from engine.messages import RolloutArrived
from engine.rollout import Field, Layout, Rollout
from engine.testing import make_rollout
from engine.wire import header
from engine.wire.codec import Codec, WeightsLayout
from engine.wire.header import HEADER_BYTES
from engine.wire.packing import Packer

STEPS, ENVS = 20, 2
GAME = Layout(
    (
        Field("observation", "uint8", (4, 84, 84), 1),
        Field("action", "int64"),
        Field("reward", "float32"),
        Field("log_prob", "float32"),
        Field("terminated", "bool"),
    ),
    STEPS,
    ENVS,
)


def game_rollout(seed: int = 0) -> npt.NDArray[np.uint8]:
    """A ball and a paddle before a background that does not change, in stacks of four frames."""
    rng = np.random.default_rng(seed)
    background = np.repeat(rng.integers(0, 256, (84, 12), np.uint8), 7, axis=1)
    frames = np.stack([background] * (STEPS + 4))
    for t, frame in enumerate(frames):
        frame[2 * t : 2 * t + 4, 3 * t : 3 * t + 4] = 255
        frame[40 + t : 52 + t, 78:82] = 200
    buffer = GAME.allocate()
    views = GAME.views(buffer)
    for t in range(STEPS + 1):
        views["observation"][t] = frames[t : t + 4]
    views["action"][:] = rng.integers(0, 6, (STEPS, ENVS))
    views["log_prob"][:] = rng.standard_normal((STEPS, ENVS))
    views["reward"][7, 1] = 1.0
    views["terminated"][9, 0] = True
    return buffer


def unpacked(packer: Packer, packed: npt.NDArray[np.uint8], layout: Layout) -> bytes:
    out = np.full(layout.num_bytes, 99, np.uint8)
    packer.unpack(packed, out)
    return out.tobytes()


def test_images_shrink_tenfold_and_come_back():
    packer, buffer = Packer(GAME), game_rollout()
    packed = packer.pack(buffer)
    assert packed is not None
    assert len(packed) < GAME.num_bytes / 10
    assert unpacked(packer, packed, GAME) == buffer.tobytes()


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[Layout, npt.NDArray[np.uint8]]:
    """Fields of any size, rows that are no whole words among them, with few or many changes."""
    fields = draw(
        st.lists(
            st.builds(
                Field,
                st.sampled_from("abc"),
                st.sampled_from(["uint8", "int64", "float32", "bool"]),
                st.lists(st.integers(1, 5), max_size=2).map(tuple),
                st.integers(0, 1),
            ),
            min_size=1,
            max_size=4,
        )
    )
    layout = Layout(tuple(fields), draw(st.integers(1, 6)), draw(st.integers(1, 4)))
    buffer = layout.allocate()
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([0.0, 0.01, 0.2, 1.0]))
    changed = rng.random(len(buffer)) < share
    buffer[changed] = rng.integers(0, 256, int(changed.sum()))
    return layout, buffer


@given(rollouts())
def test_every_bit_of_any_rollout_comes_back(made: tuple[Layout, npt.NDArray[np.uint8]]):
    layout, buffer = made
    before = buffer.tobytes()
    packed = Packer(layout).pack(buffer)
    assert buffer.tobytes() == before, "packing must not write"
    if packed is not None:
        assert len(packed) < len(before)
        assert unpacked(Packer(layout), packed, layout) == before


def test_noise_is_sent_as_it_is():
    layout = Layout((Field("observation", "float32", (17,), 1),), 20, 8)
    noise = np.random.default_rng(0).integers(0, 256, layout.num_bytes, np.uint8)
    assert Packer(layout).pack(noise) is None


def words(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    return packed.copy().view(np.uint64)


def _with(number: int, value: int) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]:
    def change(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        changed = words(packed)
        changed[number] = value
        return changed.view(np.uint8)

    return change


CHANGES: dict[str, Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]] = {
    "nothing": lambda packed: packed[:0],
    "only counts": lambda packed: packed[: 8 * len(GAME.fields)],
    "cut within a word": lambda packed: packed[:-3],
    "cut by a word": lambda packed: packed[:-8],
    "a word too many": lambda packed: np.concatenate([packed, np.zeros(8, np.uint8)]),
    "a count too large": _with(0, 2**63),
    "a count one too large": lambda packed: _with(0, int(words(packed)[0]) + 1)(packed),
    "no changes, and their words": _with(0, 0),
    "words without bits": _with(len(GAME.fields), 0),
    "a field said to be as it is": _with(0, 2**64 - 1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_was_not_packed_is_refused(
    change: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]],
):
    packed = Packer(GAME).pack(game_rollout())
    assert packed is not None
    with pytest.raises(WireError, match="packed"):
        Packer(GAME).unpack(change(packed), GAME.allocate())


def test_a_rollout_travels_packed_with_its_description():
    codec = Codec(GAME, WeightsLayout(16, 7))
    rollout = Rollout(make_rollout(layout=GAME, ticket=5).info, game_rollout())
    (frame,) = codec.encode(RolloutArrived(rollout, 3), "buffer-0", packs=True)
    assert header.kind_of(frame) == header.KIND_PACKED
    assert header.destination_of(frame) == "buffer-0"
    assert len(frame) < GAME.num_bytes / 10
    message = codec.decode([frame])
    assert isinstance(message, RolloutArrived)
    assert (message.rollout.info, message.held_version) == (rollout.info, 3)
    assert message.rollout.buffer.tobytes() == rollout.buffer.tobytes()


def test_a_rollout_that_does_not_shrink_travels_as_it_is():
    layout = Layout((Field("observation", "uint8", (64,), 1),), 4, 2)
    codec = Codec(layout, WeightsLayout(16, 7))
    rollout = make_rollout(layout=layout)
    rollout.buffer[:] = np.random.default_rng(0).integers(0, 256, layout.num_bytes)
    (frame,) = codec.encode(RolloutArrived(rollout, 3), "buffer-0", packs=True)
    assert header.kind_of(frame) == header.KIND_ROLLOUT


@pytest.mark.parametrize("num_bytes", [0, 8, 10**7])
def test_a_packed_frame_of_an_impossible_size_is_refused(num_bytes: int):
    info = make_rollout(layout=GAME).info
    head = header.pack_rollout("buffer-0", info, 0, GAME.digest, GAME.num_bytes, is_packed=True)
    assert len(head) == HEADER_BYTES
    with pytest.raises(WireError):
        Codec(GAME, WeightsLayout(16, 7)).decode([head + bytes(num_bytes)])
