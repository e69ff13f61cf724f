"""Large frames in parts: what is cut comes back, and nothing else is made of what arrives."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import WireError
from engine.messages import BatchArrived, Report, RolloutArrived, SamplesArrived
from engine.rollout import Field, Layout, Samples, SamplesInfo
from engine.testing import make_rollout
from engine.trace.records import Ledger
from engine.wire.chunking import CHUNK_BYTES, join, split
from engine.wire.codec import Codec, WeightsLayout, allocate_framed
from engine.wire.header import HEADER_BYTES

LAYOUT = Layout((Field("observation", "uint8", (500,), 1), Field("action", "int64")), 2, 3)
SAMPLES = Layout((Field("observation", "float32", (50,)),), 4, 3)
CODEC = Codec(LAYOUT, WeightsLayout(24, 7), SAMPLES)
MOST = CODEC.max_frame_bytes
SMALL = HEADER_BYTES
"""Bytes of a part: a frame's header must be in the first."""


def rollout(seed: int):
    made = make_rollout(layout=LAYOUT)
    made.buffer[:] = np.random.default_rng(seed).integers(0, 256, made.buffer.nbytes)
    return made


INFO = SamplesInfo(env_steps=3, drawn_s=0.5, age_mean_s=0.1, age_max_s=0.2)
LEDGER = Ledger(t_s=1.0, collected=4, consumed=2, dropped=1, in_flight=1)
MESSAGES = [
    RolloutArrived(rollout(1), 3),
    BatchArrived(4, (rollout(2), rollout(3))),
    SamplesArrived(5, Samples(INFO, allocate_framed(SAMPLES.num_bytes))),
    Report(address="buffer-0", records=[LEDGER] * 20),
]


def whole(frames) -> list[bytes]:
    return [bytes(frame) for frame in frames]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("chunk_bytes", [SMALL, SMALL + 64, 1000, CHUNK_BYTES])
def test_what_is_cut_comes_back(message, chunk_bytes):
    frames = CODEC.encode(message, "learner-0")
    chunks = split(frames, chunk_bytes)
    assert whole(join(chunks, MOST, chunk_bytes)) == whole(frames)
    is_raw = not isinstance(message, Report)
    assert (len(chunks) > len(frames)) == (is_raw and chunk_bytes < max(map(len, frames)))


def test_cutting_copies_nothing():
    buffer = allocate_framed(LAYOUT.num_bytes)
    made = make_rollout(layout=LAYOUT)
    frames = CODEC.encode(RolloutArrived(type(made)(made.info, buffer), 0), "buffer-0")
    chunks = split(frames, SMALL)
    buffer[:] = 7
    assert bytes(chunks[1]) == b"\7" * SMALL


def test_a_frame_of_exactly_one_part_is_left_alone():
    frames = CODEC.encode(MESSAGES[0], "buffer-0")
    chunks = split(frames, len(frames[0]))
    assert chunks == frames
    assert join(chunks, MOST, len(frames[0]))[0] is chunks[0]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda chunks: chunks[:-1],
        lambda chunks: [*chunks, chunks[-1]],
        lambda chunks: [*chunks[:-1], chunks[-1][:-1]],
        lambda chunks: [chunks[0], *chunks[2:]],
    ],
    ids=["one missing", "one too many", "last too short", "one left out"],
)
def test_parts_that_are_no_whole_frame_are_refused(spoil):
    chunks = spoil(split(CODEC.encode(MESSAGES[0], "buffer-0"), SMALL))
    with pytest.raises(WireError):
        CODEC.decode(join(chunks, MOST, SMALL))


def test_no_more_than_the_largest_frame_is_ever_put_together():
    chunks = split(CODEC.encode(MESSAGES[0], "buffer-0"), SMALL)
    most = HEADER_BYTES + LAYOUT.num_bytes
    assert len(join(chunks, most, SMALL)) == 1
    assert len(join(chunks, most - 1, SMALL)) == len(chunks)


def test_parts_that_do_not_begin_like_a_frame_are_refused():
    with pytest.raises(WireError, match="does not begin like one of TianJi's"):
        join([b"x" * SMALL, b"x"], MOST, SMALL)
