"""What must hold for any input whatever: only the declared error, little memory, little time.

An input is a short program: its bytes choose a valid seed and what to change in it, so that most
inputs get past the first check. `test_fuzz.py` runs it under Hypothesis and over the corpus, and
`fuzz.py` under a coverage-guided fuzzer.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import msgspec

from engine.config.config_file import load_experiment
from engine.errors import ConfigError, WireError
from engine.graph.policy import read_policy
from engine.messages import (
    BatchArrived,
    Counters,
    Joined,
    ModelOffered,
    PrioritiesArrived,
    Report,
    RolloutArrived,
    SamplesArrived,
    Start,
    Stopped,
    WeightsArrived,
)
from engine.rollout import (
    PRIORITY_FIELDS,
    Field,
    Layout,
    Priorities,
    Samples,
    SamplesInfo,
)
from engine.testing import make_rollout, make_weights
from engine.trace.reader import read_summary, read_table
from engine.trace.records import RECORD_TYPES, Consumption, Event, Ledger, Merge, table_of
from engine.wire import header
from engine.wire.codec import Codec, WeightsLayout
from engine.wire.frames import allocate_framed
from engine.wire.keys import make_keyrings
from engine.wire.socket_factory import seals_of
from tests.fuzz.fuzz_inputs import FILE_BYTES, FRAME_BYTES, Choices, bounded, edit, mutated
from tests.fuzz.shared_memory import play_rings, read_spoilt_memory
from tests.helpers.paths import REPOSITORY
from tianji_cli.config.inventory import Host, load_inventory
from tianji_cli.storage.deployment import Deployment, HostPart, read_deployment
from tianji_cli.storage.takings import Share, takings_of

ROOT = REPOSITORY
LAYOUT = Layout((Field("observation", "float32", (2,), 1), Field("action", "int64")), 2, 3)
WEIGHTS = WeightsLayout(num_bytes=24, digest=0xFEED)
SAMPLES = Layout((Field("observation", "float32", (2,)), Field("key", "int64")), 4, 3)
PRIORITIES = Layout(PRIORITY_FIELDS, 4, 3)
CODEC = Codec(LAYOUT, WEIGHTS, SAMPLES, PRIORITIES)

Target = Callable[[bytes, Path], None]


def says_where(error: ConfigError, path: Path) -> None:
    assert error.where.startswith(str(path)), f"{error} does not begin with the file"


def _seed_frames() -> list[bytes]:
    rollout = make_rollout(ticket=5, version=7, env_steps=6, layout=LAYOUT)
    info = SamplesInfo(env_steps=2**40, drawn_s=1.5, age_mean_s=0.25, age_max_s=0.5)
    ledger = Ledger(t_s=1.5, collected=4, consumed=2, dropped=1, in_flight=1)
    messages = (
        RolloutArrived(rollout, 8),
        WeightsArrived(make_weights(4, WEIGHTS.num_bytes)),
        ModelOffered(3, make_weights(4, WEIGHTS.num_bytes)),
        SamplesArrived(7, Samples(info, allocate_framed(SAMPLES.num_bytes))),
        PrioritiesArrived(Priorities(allocate_framed(PRIORITIES.num_bytes))),
        Start(origin_ns=2**62),
        Joined(address="actor-0", host="böx", pid=1, protocol=1),
        Stopped(address="actor-0", counters=Counters(collected=9)),
        Report(address="buffer-0", records=[ledger, ledger]),
        BatchArrived(9, (rollout, rollout)),
    )
    slot = header.pack_rollout("buffer-0", rollout.info, 8, LAYOUT.digest, LAYOUT.num_bytes, 1)
    frames = [bytes(frame) for m in messages for frame in CODEC.encode(m, "buffer-0")]
    (packed,) = CODEC.encode(RolloutArrived(rollout, 8), "buffer-0", packs=True)
    assert header.kind_of(packed) == header.KIND_PACKED
    return [*frames, slot, b"", bytes(packed)]


FRAMES = _seed_frames()
BATCH = FRAMES.index(header.pack_batch("buffer-0", 9, 2))
PACKED = (b"\xc0", b"\xc4\xff", b"\xdb\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\x91" * 2000)
PACKED += (b"\xdf\xff\xff\xff\xff", b"\xa4type", b"\xa6Report", b"\xcb\x7f\xf8" + b"\0" * 6)


def frames_of(data: bytes) -> list[bytes]:
    """The frames that a program of bytes makes."""
    choices = Choices(data)
    num_frames = (1, 1, 1, 2, 3)[choices.below(5)]
    frames = []
    for number in range(num_frames):
        first = BATCH if num_frames > 1 and number == 0 else choices.below(len(FRAMES))
        frame = mutated(FRAMES[first], choices, PACKED)
        if len(frame) >= header.HEADER_BYTES and choices.below(2):
            struct.pack_into("<I", frame, 124, zlib.crc32(frame[:124]))
        frames.append(bytes(frame))
    return frames


def decode_frames(data: bytes, scratch: Path) -> None:
    """Frames are decoded, or refused with WireError; as memory that a socket owns."""
    frames = [memoryview(frame) for frame in frames_of(data)]
    with bounded(FRAME_BYTES, sum(map(len, frames))):
        try:
            header.destination_of(frames[0])
            CODEC.decode(frames)
        except WireError:
            return


KEYRINGS = make_keyrings(["actor-0", "buffer-0"])
SENDER, RECEIVER = (seals_of(name, keyring) for name, keyring in KEYRINGS.items())
CONNECTION = SENDER.connection("actor-0")


def sealed_of(data: bytes) -> list[bytes]:
    """A sealed message as a program of bytes changes it; some parts lost, some twice."""
    choices = Choices(data)
    frames = [FRAMES[choices.below(len(FRAMES))] for _ in range(1 + choices.below(3))]
    sealed = SENDER.seal("buffer-0", CONNECTION, frames)
    parts = [bytearray(part) for part in sealed]
    for _ in range(choices.below(4)):
        at = choices.below(len(parts) + 1)
        parts[at : at + choices.below(3)] = parts[: choices.below(3)]
    for _ in range(choices.below(3) if parts else 0):
        edit(parts[choices.below(len(parts))], choices, PACKED)
    return [bytes(part) for part in parts]


def open_sealed(data: bytes, scratch: Path) -> None:
    """A sealed message is opened and decoded, or refused with WireError."""
    parts = [memoryview(part) for part in sealed_of(data)]
    with bounded(FRAME_BYTES, sum(map(len, parts))):
        try:
            CODEC.decode(RECEIVER.open("actor-0", CONNECTION, parts))
        except WireError:
            return


def _texts(*patterns: str) -> list[bytes]:
    return [path.read_bytes() for pattern in patterns for path in sorted(ROOT.glob(pattern))]


LOADERS: tuple[tuple[Callable[[Path], object], list[bytes]], ...] = (
    (load_experiment, _texts("experiments/cartpole_*.yaml")),
    (load_inventory, _texts("inventories/*.yaml")),
    (lambda path: read_policy(str(path)), _texts("engine/graph/policies/*.yaml")),
)
YAML = (b"&a ", b"*a", b"<<: *a\n", b"!!binary ", b"!!set ", b"? [", b"{", b"}", b"[", b"]", b"\0")
YAML += (b": null\n", b"1e400", b"0x" + b"f" * 5000, b"9" * 5000, b"2001-99-99", b"[" * 2000)
YAML += (b'"\\ud800"', b"1:" + b"59:" * 50 + b"1", b"\xff", b"- ", b"\t", b"[1-9][1-9]", b"#", b"|")


def read_yaml_file(data: bytes, scratch: Path) -> None:
    """A file is what it should be, or refused with ConfigError that names it."""
    choices = Choices(data)
    load, seeds = LOADERS[choices.below(len(LOADERS))]
    text = bytes(mutated(seeds[choices.below(len(seeds))], choices, YAML))
    path = scratch / "input.yaml"
    path.write_bytes(text)
    with bounded(FILE_BYTES, len(text)):
        try:
            load(path)
        except ConfigError as error:
            says_where(error, path)


ROWS: tuple[tuple[type, bytes], ...] = tuple(
    (type(row), msgspec.json.encode(row) + b"\n")
    for row in (
        Ledger(t_s=1.0, collected=4, consumed=2, dropped=1, in_flight=1),
        Event(t_s=1.0, kind="drop", host="a", role="actor-0", detail="é"),
        Consumption(
            t_s=1.0, learner=0, version=1, env_steps=2, env_steps_total=2, samples_trained=8,
            samples_trained_total=8, updates_total=4, wait_s=0.1, update_s=0.1,
            metrics={"loss": 1.0, "entropy": float("nan")},
        ),
        Merge(
            t_s=1.0, group=1, version=4, lag=2, lag_max=2, versions={0: 6, 1: 4},
            shares={0: 0.75, 1: 0.25}, merges_total=9,
        ),
    )
)  # fmt: skip
JSON = (b"null", b"[" * 2000, b'{"a":' * 2000, b"1e999", b"9" * 400, b'"\\ud800"', b"\n", b"\xff")
JSON += (b",", b'"', b"}", b'"table":"', b"-1", b"NaN", b"\0")


def read_trace_file(data: bytes, scratch: Path) -> None:
    """A table or a summary is read, or refused with ConfigError that names file and line."""
    choices = Choices(data)
    kind, line = ROWS[choices.below(len(ROWS))]
    form = choices.below(3)
    content = bytes(mutated(line * (1 + choices.below(3)), choices, JSON))
    for old in scratch.glob("*.json*"):
        old.unlink()
    if form == 2:
        path = scratch / "summary.json"
        path.write_bytes(content)
    else:
        packed = bytes(mutated(gzip.compress(content, 1, mtime=0), choices, JSON))
        path = scratch / (f"{table_of(kind)}.jsonl" + ".gz" * form)
        path.write_bytes(packed if form else content)
    with bounded(FILE_BYTES, len(content)):
        try:
            if form == 2:
                read_summary(path)
            else:
                read_table(scratch, kind)
        except ConfigError as error:
            says_where(error, path)


DEPLOYMENT = msgspec.json.encode(
    Deployment(
        run_id="r",
        parts=(
            HostPart(
                host=Host(name="box", connection="ssh", ssh_host="b", address="", ports=(1, 2)),
                python="/p",
                source="/s",
                run_dir="/w/runs/r@box",
            ),
        ),
    )
)
NAMES = (b"../", b"/", b"\0", b"\n", b"\xed\xb2\x80", b".log", b".json", b"trace/", b"logs/box/")
NAMES += (
    b"state/box.json",
    b"checkpoints/",
    b"checkpoints/group-1/",
    b"v0000000001.json",
    b"9" * 99,
)
NAMES += (b"summary.json", b"trace/events.jsonl", b"deployment.json", b"manifest.json")


def read_deployment_file(data: bytes, scratch: Path) -> None:
    """A deployment of a stranger is refused with ConfigError that names it, unless it is over."""
    choices = Choices(data)
    content = bytes(mutated(DEPLOYMENT, choices, (*JSON, *NAMES)))
    path = scratch / "deployment.json"
    path.write_bytes(content)
    with bounded(FILE_BYTES, len(content)):
        try:
            assert read_deployment(scratch).is_collected
        except ConfigError as error:
            says_where(error, path)


def choose_names(data: bytes, _scratch: Path) -> None:
    """Whatever a host calls its files, none is taken that lies elsewhere or decides anything."""
    choices = Choices(data)
    text = bytes(mutated(b"logs/box/actor-0.log\nstate/box.json", choices, NAMES))
    there = dict.fromkeys(text.decode("utf-8", "surrogateescape").split("\n"), 1)
    share = Share("box", is_head=bool(choices.below(2)), learners=(0, 1)[: choices.below(3)])
    takings = takings_of(there, share)
    for name in (*takings.growing, *takings.replaced, *takings.checkpoints):
        parts = PurePosixPath(name).parts
        assert name.isascii()
        assert name.isprintable()
        assert ".." not in parts
        assert parts[0] in ("logs", "state", "trace", "checkpoints", "summary.json")
        assert share.is_head or parts[0] not in ("trace", "summary.json")
        assert share.learners or parts[0] != "checkpoints"


assert all(kind in RECORD_TYPES for kind, _ in ROWS)
TARGETS: dict[str, Target] = {
    "frames": decode_frames,
    "sealed": open_sealed,
    "yaml": read_yaml_file,
    "traces": read_trace_file,
    "deployments": read_deployment_file,
    "names": choose_names,
    "rings": play_rings,
    "memory": read_spoilt_memory,
}
