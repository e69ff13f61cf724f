"""Messages to frames and back. Sizes and layouts are checked before a byte is interpreted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from engine.errors import WireError
from engine.messages import (
    TAKERS,
    AnyMessage,
    BatchArrived,
    ModelMerged,
    ModelOffered,
    PrioritiesArrived,
    RolloutArrived,
    SamplesArrived,
    SmallMessage,
    WeightsArrived,
)
from engine.rollout import Layout, Priorities, Rollout, Samples, Weights
from engine.wire import header
from engine.wire.arena import Arena
from engine.wire.frames import allocate_framed, join_frame, payload_of
from engine.wire.header import HEADER_BYTES, PREFIX_BYTES, Buffer
from engine.wire.packing import Packer
from engine.wire.spsc_ring import FRAME
from engine.wording import plural

MAX_MESSAGE_BYTES = 16 * 2**20
NOTHING = Layout((), 0, 0)


@dataclass(frozen=True)
class WeightsLayout:
    """Size and identity of the flat parameter tensor."""

    num_bytes: int
    digest: int


class Codec:
    """Encodes and decodes all messages of one run.

    Args:
        rollout: Layout of a rollout.
        weights: Layout of the parameters.
        samples, priorities: Layouts of what travels between a replay buffer and a learner.
        arena: Memory shared with other processes of this host, if there is any.
        model: Of what learners and their reducer exchange; the parameters by default.
    """

    def __init__(
        self,
        rollout: Layout,
        weights: WeightsLayout,
        samples: Layout = NOTHING,
        priorities: Layout = NOTHING,
        arena: Arena | None = None,
        *,
        model: WeightsLayout | None = None,
    ) -> None:
        self.arena = arena
        self._rollout = rollout
        self._packer = Packer(rollout)
        self._weights = weights
        self._model = model or weights
        self._samples = samples
        self._priorities = priorities
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[SmallMessage] = msgspec.msgpack.Decoder(SmallMessage)

    @classmethod
    def for_messages(cls) -> Codec:
        """For processes that only exchange control messages: no raw buffers."""
        return cls(NOTHING, WeightsLayout(0, 0))

    @property
    def max_frame_bytes(self) -> int:
        """No frame of this run is larger; sockets refuse larger ones before allocating."""
        layouts = (self._rollout, self._weights, self._model, self._samples)
        largest = max(layout.num_bytes for layout in layouts)
        return max(largest + HEADER_BYTES, MAX_MESSAGE_BYTES)

    @property
    def weights_frame_bytes(self) -> int:
        return HEADER_BYTES + self._weights.num_bytes

    def encode(
        self,
        message: AnyMessage,
        to: str,
        *,
        shares_memory: bool = False,
        learner: int = -1,
        packs: bool = False,
    ) -> list[Buffer]:
        """One frame for a message, rollout or parameters; 1 + B frames for a batch of B rollouts.

        Weights are for every role of the receiving process that takes any, whatever `to` is:
        the same frame is in transit to many processes, and queued data must not change.

        Args:
            message: What to encode.
            to: The role that it is for.
            shares_memory: Whether the receiver maps the same arena. A rollout there is then sent as
                its header, and its slot belongs to the receiver from now on; weights are put on
                memory shared with them, once for all.
            learner: Number of the sender, if it is a learner.
            packs: Whether a rollout is packed, if that makes it smaller.
        """
        match message:
            case RolloutArrived(rollout=rollout, held_version=held) if packs:
                return [self._packed_frame(to, rollout, held)]
            case RolloutArrived(rollout=rollout, held_version=held):
                return [self._rollout_frame(to, rollout, held, shares_memory)]
            case WeightsArrived(weights=weights):
                if shares_memory and learner >= 0 and self.arena and self.arena.shared_weights:
                    self.arena.shared_weights.publish(learner, weights.version, weights.buffer)
                    kind = header.KIND_BOARD
                    return [self._parameters_head(kind, TAKERS, weights.version, learner)]
                return [self._parameters(header.KIND_WEIGHTS, TAKERS, weights)]
            case ModelOffered(group=group, weights=weights, answered=answered):
                return [self._parameters(header.KIND_MODEL, to, weights, group, answered)]
            case ModelMerged(weights=weights):
                return [self._parameters(header.KIND_MERGED, to, weights)]
            case SamplesArrived(batch=batch, samples=samples):
                layout = self._samples
                head = header.pack_samples(to, batch, samples.info, layout.digest, layout.num_bytes)
                return [join_frame(head, samples.buffer)]
            case PrioritiesArrived(priorities=priorities):
                layout = self._priorities
                head = header.pack_priorities(to, layout.digest, layout.num_bytes)
                return [join_frame(head, priorities.buffer)]
            case BatchArrived(batch=batch, rollouts=rollouts):
                frames = [self._rollout_frame(to, r, -1, shares_memory) for r in rollouts]
                return [header.pack_batch(to, batch, len(frames)), *frames]
        return [header.pack_message_prefix(to) + self._encoder.encode(message)]

    def encode_sequenced(self, message: SmallMessage, to: str, session: int, number: int) -> Buffer:
        """One frame for a sequenced message."""
        return header.pack_sequence_prefix(to, session, number) + self._encoder.encode(message)

    def decode(self, frames: Sequence[Buffer]) -> AnyMessage:
        """Decodes the frames of `encode`.

        Arrays of the result are views on the frames, without copies.

        Raises:
            WireError: The frames are invalid or of another layout.
        """
        if not frames:
            raise WireError("an empty message")
        kind = header.kind_of(frames[0])
        if kind == header.KIND_BATCH:
            batch, num_rollouts = header.unpack_batch(frames[0])
            if len(frames) != 1 + num_rollouts:
                rollouts = plural(num_rollouts, "rollout")
                raise WireError(f"a batch of {rollouts} in {plural(len(frames), 'frame')}")
            return BatchArrived(batch, tuple(self._rollout_of(frame)[0] for frame in frames[1:]))
        if len(frames) != 1:
            raise WireError(f"{plural(len(frames), 'frame')} where one was expected")
        return self._decode_one(kind, frames[0])

    def _decode_one(self, kind: int, frame: Buffer) -> AnyMessage:
        match kind:
            case header.KIND_ROLLOUT | header.KIND_SLOT | header.KIND_PACKED:
                return RolloutArrived(*self._rollout_of(frame))
            case header.KIND_WEIGHTS | header.KIND_MODEL | header.KIND_MERGED:
                return self._parameters_of(frame, kind)
            case header.KIND_BOARD:
                return self._board_weights_of(frame)
            case header.KIND_SAMPLES:
                layout = self._samples
                batch, info = header.unpack_samples(frame, layout.digest, layout.num_bytes)
                return SamplesArrived(batch, Samples(info, payload_of(frame)))
            case header.KIND_PRIORITIES:
                layout = self._priorities
                header.check_priorities(frame, layout.digest, layout.num_bytes)
                return PrioritiesArrived(Priorities(payload_of(frame)))
            case header.KIND_SEQUENCED:
                return self._message_of(frame)
            case header.KIND_MESSAGE if header.is_message_prefix(frame):
                return self._message_of(frame)
            case header.KIND_MESSAGE:
                raise WireError("a message with the prefix of a raw buffer")
        raise WireError(f"frame of unknown kind {kind}")

    def _message_of(self, frame: Buffer) -> SmallMessage:
        try:
            return self._decoder.decode(memoryview(frame)[PREFIX_BYTES:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(f"not a message of this protocol: {error}") from error

    def _parameters(
        self, kind: int, to: str, weights: Weights, group: int = 0, answered: int = 0
    ) -> Buffer:
        head = self._parameters_head(kind, to, weights.version, group, answered)
        return join_frame(head, weights.buffer)

    def _parameters_head(
        self, kind: int, to: str, version: int, group: int, answered: int = 0
    ) -> bytes:
        layout = self._parameters_layout(kind)
        return header.pack_parameters(
            kind, to, version, group, answered, layout.digest, layout.num_bytes
        )

    def _board_weights_of(self, frame: Buffer) -> WeightsArrived:
        layout = self._weights
        version, learner, _ = header.unpack_parameters(
            frame, header.KIND_BOARD, layout.digest, layout.num_bytes
        )
        if self.arena is None or self.arena.shared_weights is None:
            raise WireError("weights in shared memory, where none is shared")
        return WeightsArrived(Weights(*self.arena.shared_weights.read(learner, version)))

    def _parameters_layout(self, kind: int) -> WeightsLayout:
        is_exchanged = kind in (header.KIND_MODEL, header.KIND_MERGED)
        return self._model if is_exchanged else self._weights

    def _parameters_of(self, frame: Buffer, kind: int) -> AnyMessage:
        layout = self._parameters_layout(kind)
        version, group, answered = header.unpack_parameters(
            frame, kind, layout.digest, layout.num_bytes
        )
        weights = Weights(version, payload_of(frame))
        if kind == header.KIND_MODEL:
            return ModelOffered(group, weights, answered)
        return WeightsArrived(weights) if kind == header.KIND_WEIGHTS else ModelMerged(weights)

    def _rollout_frame(
        self, to: str, rollout: Rollout, held_version: int, shares_memory: bool
    ) -> Buffer:
        layout = self._rollout
        slot = self.arena.hand_over(rollout.buffer) if self.arena and shares_memory else None
        head = header.pack_rollout(
            to, rollout.info, held_version, layout.digest, layout.num_bytes, slot
        )
        return head if slot is not None else join_frame(head, rollout.buffer)

    def _rollout_of(self, frame: Buffer) -> tuple[Rollout, int]:
        layout = self._rollout
        info, held_version = header.unpack_rollout(frame, layout.digest, layout.num_bytes)
        slot = header.slot_of(frame)
        if slot is None:
            return Rollout(info, self._unpacked(frame)), held_version
        if self.arena is None:
            raise WireError("a rollout in shared memory, where none is shared")
        return Rollout(info, self.arena.attach(slot, info.epoch)), held_version

    def _packed_frame(self, to: str, rollout: Rollout, held_version: int) -> Buffer:
        packed = self._packer.pack(rollout.buffer)
        if packed is None:
            return self._rollout_frame(to, rollout, held_version, shares_memory=False)
        layout, info = self._rollout, rollout.info
        head = header.pack_rollout(
            to, info, held_version, layout.digest, layout.num_bytes, is_packed=True
        )
        return join_frame(head, packed)

    def _unpacked(self, frame: Buffer) -> npt.NDArray[np.uint8]:
        if header.kind_of(frame) != header.KIND_PACKED:
            return payload_of(frame)
        buffer = allocate_framed(self._rollout.num_bytes)
        self._packer.unpack(payload_of(frame), buffer)
        return buffer

    def post(self, message: RolloutArrived, to: str) -> bool:
        """Announces a rollout in its actor's ring to this buffer, which maps the same arena.

        Returns:
            False if it must be sent as a frame; the ring keeps the order.
        """
        arena, info = self.arena, message.rollout.info
        ring = arena.rings.of(info.actor) if arena is not None else None
        if arena is None or ring is None or ring.to != to:
            return False
        slot = arena.hand_over(message.rollout.buffer)
        if slot is None:
            ring.put(info.epoch, FRAME)
            return False
        header.write_rollout(arena.memory, arena.header_at(slot), info, message.held_version)
        ring.put(info.epoch, slot)
        return True

    def take_in(self, epoch: int, slot: int) -> RolloutArrived:
        """The rollout of a slot that a ring announced.

        Raises:
            WireError: The slot holds something else by now.
        """
        assert self.arena is not None
        buffer = self.arena.attach(slot, epoch)
        info, held = header.read_rollout(self.arena.memory, self.arena.header_at(slot))
        return RolloutArrived(Rollout(info, buffer), held)

    def free(self, frames: Sequence[Buffer]) -> None:
        """Frees the slots of frames that could not be sent and so have no receiver."""
        for frame in frames:
            slot = header.slot_of(frame)
            if slot is not None and self.arena is not None:
                self.arena.free(slot)
