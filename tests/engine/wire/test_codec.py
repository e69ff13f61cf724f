"""Frames: what is encoded comes back; whatever else arrives is refused before it is used."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.messages import (
    TAKERS,
    AnyMessage,
    BatchArrived,
    BatchRequested,
    Counters,
    Joined,
    ModelMerged,
    ModelOffered,
    PrioritiesArrived,
    ProgressShown,
    Report,
    RolloutArrived,
    SamplesArrived,
    SmallMessage,
    Start,
    Stop,
    Stopped,
    StopRequested,
    TrackerFailed,
    WeightsArrived,
    WeightsRequested,
)
from engine.progress import Progress
from engine.rollout import (
    PRIORITY_FIELDS,
    Field,
    Layout,
    Priorities,
    Rollout,
    Samples,
    SamplesInfo,
    Weights,
)
from engine.testing import make_rollout, make_weights
from engine.trace.records import Ledger
from engine.wire import header
from engine.wire.codec import MAX_MESSAGE_BYTES, Codec, WeightsLayout
from engine.wire.frames import allocate_framed

CHECKED = settings(deadline=None, max_examples=200, derandomize=True)
LAYOUT = Layout((Field("observation", "float32", (2,), 1), Field("action", "int64")), 2, 3)
WEIGHTS = WeightsLayout(num_bytes=24, digest=0xFEED)
SAMPLES = Layout((Field("observation", "float32", (2,)), Field("key", "int64")), 4, 3)
PRIORITIES = Layout(PRIORITY_FIELDS, 4, 3)
CODEC = Codec(LAYOUT, WEIGHTS, SAMPLES, PRIORITIES)

SMALL_MESSAGES = [
    BatchRequested(learner="learner-0", batch=3, consumed_env_steps=2**40),
    Joined(address="actor-0", host="böx", pid=1, protocol=1),
    Report(
        address="buffer-0",
        records=[Ledger(t_s=1.5, collected=4, consumed=2, dropped=1, in_flight=1)],
    ),
    Start(origin_ns=2**62),
    Stop(sent_rollouts={"actor-0": 4}, consumed_env_steps=8),
    Stopped(address="actor-0", counters=Counters(collected=9)),
    StopRequested(reason="interrupted"),
    TrackerFailed(tool="wandb", cause="was killed by SIGKILL"),
    ProgressShown(progress=Progress(phase="running", t_s=1.0, return_mean=2.5)),
    WeightsRequested(actor="actor-0", held_version=-1),
]


def filled_rollout(ticket: int = 5) -> Rollout:
    rollout = make_rollout(
        actor=1, epoch=2, sequence=3, ticket=ticket, version=7, env_steps=6, layout=LAYOUT
    )
    rollout.buffer[:] = np.arange(LAYOUT.num_bytes) % 251
    return rollout


def frames_of(message: AnyMessage) -> list[bytes]:
    return [bytes(frame) for frame in CODEC.encode(message, "buffer-0")]


ROLLOUT_FRAME = frames_of(RolloutArrived(filled_rollout(), 8))[0]
WEIGHTS_FRAME = frames_of(WeightsArrived(make_weights(4, WEIGHTS.num_bytes)))[0]
BATCH_FRAMES = frames_of(BatchArrived(9, (filled_rollout(1), filled_rollout(2))))


def refused(*frames: bytes) -> WireError:
    with pytest.raises(WireError) as error:
        CODEC.decode(frames)
    return error.value


@pytest.mark.parametrize("message", SMALL_MESSAGES, ids=lambda m: type(m).__name__)
def test_small_messages_come_back(message: SmallMessage):
    assert CODEC.decode(frames_of(message)) == message
    assert Codec.for_messages().decode(frames_of(message)) == message


def test_a_rollout_comes_back_with_its_description_and_every_byte():
    message = CODEC.decode([ROLLOUT_FRAME])
    assert isinstance(message, RolloutArrived)
    assert message.held_version == 8
    assert message.info == filled_rollout().info
    assert np.array_equal(message.rollout.buffer, filled_rollout().buffer)
    assert LAYOUT.views(message.rollout.buffer)["action"].shape == (2, 3)


def test_weights_come_back():
    message = CODEC.decode([WEIGHTS_FRAME])
    assert isinstance(message, WeightsArrived)
    assert message.weights.version == 4
    assert message.weights.buffer.nbytes == WEIGHTS.num_bytes


def test_models_come_back_with_their_group():
    weights = make_weights(4, WEIGHTS.num_bytes)
    offered = CODEC.decode(frames_of(ModelOffered(3, weights, answered=7)))
    assert isinstance(offered, ModelOffered)
    assert (offered.group, offered.weights.version, offered.answered) == (3, 4, 7)
    merged = CODEC.decode(frames_of(ModelMerged(weights)))
    assert isinstance(merged, ModelMerged)
    assert merged.weights.version == 4


def test_a_frame_says_which_role_it_is_for():
    for message in (*SMALL_MESSAGES, RolloutArrived(filled_rollout(), 8)):
        assert header.destination_of(frames_of(message)[0]) == "buffer-0"
    weights = WeightsArrived(make_weights(4, WEIGHTS.num_bytes))
    (frame,) = CODEC.encode(weights, "actor-7")
    assert header.destination_of(frame) == TAKERS, "one encoded buffer serves all"
    with pytest.raises(WireError, match="longer than 20"):
        CODEC.encode(Start(origin_ns=1), "environment-1234567890")


def filled_samples() -> SamplesArrived:
    info = SamplesInfo(env_steps=2**40, drawn_s=1.5, age_mean_s=0.25, age_max_s=0.5)
    buffer = allocate_framed(SAMPLES.num_bytes)
    buffer[:] = np.arange(SAMPLES.num_bytes) % 251
    return SamplesArrived(7, Samples(info, buffer))


def filled_priorities() -> PrioritiesArrived:
    buffer = allocate_framed(PRIORITIES.num_bytes)
    buffer[:] = np.arange(PRIORITIES.num_bytes) % 241
    return PrioritiesArrived(Priorities(buffer))


def test_samples_come_back_with_their_description_and_every_byte():
    message = filled_samples()
    (frame,) = CODEC.encode(message, "buffer-0")
    found = CODEC.decode([frame])
    assert isinstance(found, SamplesArrived)
    assert (found.batch, found.samples.info) == (7, message.samples.info)
    np.testing.assert_array_equal(found.samples.buffer, message.samples.buffer)


def test_priorities_come_back():
    message = filled_priorities()
    (frame,) = CODEC.encode(message, "buffer-0")
    found = CODEC.decode([frame])
    assert isinstance(found, PrioritiesArrived)
    np.testing.assert_array_equal(found.priorities.buffer, message.priorities.buffer)


@pytest.mark.parametrize(
    "message", [filled_samples(), filled_priorities()], ids=["samples", "priorities"]
)
def test_frames_of_a_run_without_replay_or_with_another_are_refused(message: AnyMessage):
    frames = [bytes(CODEC.encode(message, "buffer-0")[0])]
    other = Layout(SAMPLES.fields, 4, 4)
    for codec in (Codec(LAYOUT, WEIGHTS), Codec(LAYOUT, WEIGHTS, other, other)):
        with pytest.raises(WireError):
            codec.decode(frames)
    with pytest.raises(WireError, match="frame of"):
        CODEC.decode([frames[0][:-1]])


def test_a_batch_is_one_frame_for_itself_and_one_for_each_rollout():
    assert len(BATCH_FRAMES) == 3
    message = CODEC.decode(BATCH_FRAMES)
    assert isinstance(message, BatchArrived)
    assert message.batch == 9
    assert [rollout.info.ticket for rollout in message.rollouts] == [1, 2]
    assert np.array_equal(message.rollouts[1].buffer, filled_rollout().buffer)


def test_what_was_decoded_can_be_sent_on():
    message = CODEC.decode([ROLLOUT_FRAME])
    assert isinstance(message, RolloutArrived)
    assert frames_of(BatchArrived(9, (message.rollout,)))[1][128:] == ROLLOUT_FRAME[128:]


def test_a_buffer_with_room_for_the_header_is_sent_without_a_copy():
    buffer = allocate_framed(WEIGHTS.num_bytes)
    buffer[:] = 3
    (frame,) = CODEC.encode(WeightsArrived(Weights(1, buffer)), "actor-0")
    assert np.shares_memory(np.asarray(frame), buffer)
    assert buffer.tolist() == [3] * WEIGHTS.num_bytes, "the header lies in front of it"
    message = CODEC.decode([frame])
    assert isinstance(message, WeightsArrived)
    assert np.shares_memory(message.weights.buffer, buffer), "nor does decoding copy"


def test_a_frame_of_this_run_is_never_larger_than_sockets_allow():
    assert CODEC.max_frame_bytes == MAX_MESSAGE_BYTES
    large = Codec(LAYOUT, WeightsLayout(MAX_MESSAGE_BYTES, 0))
    assert large.max_frame_bytes == MAX_MESSAGE_BYTES + header.HEADER_BYTES


@pytest.mark.parametrize("frame", [ROLLOUT_FRAME, WEIGHTS_FRAME, BATCH_FRAMES[0]])
def test_a_buffer_frame_cut_or_lengthened_anywhere_is_refused(frame: bytes):
    for length in range(len(frame)):
        refused(frame[:length])
    refused(frame + b"\0")


def test_a_message_cut_anywhere_is_refused():
    for message in SMALL_MESSAGES:
        frame = frames_of(message)[0]
        for length in range(len(frame)):
            refused(frame[:length])


@CHECKED
@given(
    frame=st.sampled_from((ROLLOUT_FRAME, WEIGHTS_FRAME)),
    position=st.integers(0, header.HEADER_BYTES - 1),
    flip=st.integers(1, 255),
)
def test_a_header_with_any_byte_flipped_is_refused(frame: bytes, position: int, flip: int):
    spoilt = bytearray(frame)
    spoilt[position] ^= flip
    refused(bytes(spoilt))


@CHECKED
@given(st.binary(max_size=400))
def test_random_bytes_are_refused(noise: bytes):
    refused(noise)
    refused(header.MAGIC + noise)
    refused(*BATCH_FRAMES[:-1], noise)


def resealed(frame: bytes, offset: int, layout: str, *values: int) -> bytes:
    """The frame with other header fields and a checksum that fits them."""
    spoilt = bytearray(frame)
    struct.pack_into(layout, spoilt, offset, *values)
    struct.pack_into("<I", spoilt, 124, zlib.crc32(spoilt[:124]))
    return bytes(spoilt)


def test_each_agreement_is_checked_by_itself_and_named():
    assert "does not begin" in str(refused(resealed(ROLLOUT_FRAME, 0, "<I", 0)))
    assert "wire schema 9" in str(refused(resealed(ROLLOUT_FRAME, 4, "<H", 9)))
    assert "unknown kind 99" in str(refused(resealed(ROLLOUT_FRAME, 6, "<H", 99)))
    assert "differently" in str(refused(resealed(ROLLOUT_FRAME, 8, "<Q", 1)))
    assert "differently" in str(refused(resealed(ROLLOUT_FRAME, 16, "<Q", 1)))
    assert "version -1" in str(refused(resealed(WEIGHTS_FRAME, header.PREFIX_BYTES, "<q", -1)))
    assert "checksum" in str(refused(ROLLOUT_FRAME[:124] + b"\0\0\0\0" + ROLLOUT_FRAME[128:]))


@pytest.mark.parametrize(("version_min", "version_max"), [(-1, 0), (5, 4)])
def test_impossible_behaviour_versions_are_refused(version_min: int, version_max: int):
    frame = resealed(ROLLOUT_FRAME, header.PREFIX_BYTES + 24, "<qq", version_min, version_max)
    assert "are impossible" in str(refused(frame))


def test_an_unchanged_frame_passes_the_same_resealing():
    assert CODEC.decode([resealed(ROLLOUT_FRAME, header.PREFIX_BYTES + 24, "<qq", 7, 7)])


def test_a_rollout_of_another_experiment_is_refused():
    other = Codec(Layout(LAYOUT.fields, 3, 2), WEIGHTS)
    with pytest.raises(WireError):
        other.decode([ROLLOUT_FRAME])


def test_the_number_of_frames_must_be_as_announced():
    refused()
    refused(*BATCH_FRAMES[:2])
    refused(*BATCH_FRAMES, BATCH_FRAMES[1])
    refused(ROLLOUT_FRAME, ROLLOUT_FRAME)
    refused(BATCH_FRAMES[0], WEIGHTS_FRAME, WEIGHTS_FRAME)


def test_a_message_that_this_protocol_does_not_know_is_refused():
    prefix = header.pack_message_prefix("learner-0")
    unknown = CODEC._encoder.encode({"type": "Unknown"})
    incomplete = CODEC._encoder.encode({"type": "Start"})
    for payload in (b"", b"\xc1", unknown, incomplete, CODEC._encoder.encode([1, 2])):
        refused(prefix + payload)
