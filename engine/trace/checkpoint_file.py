"""Reads checkpoint files without torch, and without trusting them.

    v0000000120.json                               what it is, and the checksum of its tensors
    v0000000120-<16 digits of it>.safetensors      all tensors

A checkpoint exists once its JSON does. The tensors' name follows from their checksum, so writing a
version again never changes the tensors of an older JSON, and no file names the path of another.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
from msgspec import Meta

from engine.errors import ConfigError
from engine.progress import Count, Judge, MeanReturn, RunCounters
from engine.spec import EnvSpec, Experiment, NetworkSpec, Scalar
from engine.trace.sealed_json import SealedFormat
from engine.trace.tensor_file import refuse_strange

SCHEMA_VERSION = 3
OLDEST_SCHEMA_VERSION = 2
MAX_INFO_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20
_SINCE = {"return_mean": 3, "return_judge": 3, "return_version": 3}
"""The schema version in which a field was added; checksums of older files do not cover it."""
_MAY_CHANGE = ("num_envs", "step_latency_ms")
"""Keys of `env` that only set how many environments an actor steps, and how fast."""

Hex = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Setting = Scalar | list[Scalar]


class CheckpointInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON part of a checkpoint.

    Attributes:
        version: Of the weights.
        updates: Optimiser steps; all schedules are functions of them.
        counters: Of the whole run.
        resumes: How often the chain of runs had been resumed when it was written.
        return_mean: Mean return known when it was written: of the newest evaluation if the run has
            evaluations, else of its window of training episodes; None if there was none yet.
        return_judge: Which of the two.
        return_version: Of the weights that were evaluated, or that acted in the newest of those
            episodes: at most `version`.
        identity: Values that a run resumed from it must share, by dotted key.
        identity_sha256: Of that.
        buffer: Kind and settings of the buffer; its contents are not part of a checkpoint.
        num_bytes, sha256: Of the tensors' file.
        info_sha256: Of all the other fields, as msgspec encodes them in their order.
    """

    schema_version: int = SCHEMA_VERSION
    version: Annotated[int, Meta(ge=0, lt=10**10)]
    updates: Count
    counters: RunCounters
    resumes: Count = 0
    return_mean: float | None = None
    return_judge: Judge | None = None
    return_version: Count | None = None
    identity: dict[str, Setting]
    identity_sha256: Hex
    buffer: dict[str, Setting]
    num_bytes: Count
    sha256: Hex
    info_sha256: str = ""

    def sealed(self) -> CheckpointInfo:
        """The same with its own checksum."""
        later = [name for name, since in _SINCE.items() if since > self.schema_version]
        bare = msgspec.structs.replace(self, info_sha256="", **dict.fromkeys(later))
        covered = msgspec.structs.asdict(bare)
        for name in later:
            del covered[name]
        digest = hashlib.sha256(msgspec.json.encode(covered)).hexdigest()
        return msgspec.structs.replace(bare, info_sha256=digest)

    @property
    def known_return(self) -> MeanReturn | None:
        """The return that it was written at, if one was known."""
        if self.return_mean is None or self.return_judge is None:
            return None
        version = self.return_version or 0
        return MeanReturn(mean=self.return_mean, judge=self.return_judge, version=version)

    @property
    def name(self) -> str:
        """Of the JSON file."""
        return f"v{self.version:010d}.json"

    @property
    def tensors_name(self) -> str:
        """Of the file with the tensors."""
        return f"v{self.version:010d}-{self.sha256[:16]}.safetensors"


_FORMAT = SealedFormat(
    type=CheckpointInfo,
    noun="a checkpoint",
    oldest=OLDEST_SCHEMA_VERSION,
    newest=SCHEMA_VERSION,
    max_bytes=MAX_INFO_BYTES,
    fix="use the release that wrote it",
)


def identity_of(experiment: Experiment) -> dict[str, Setting]:
    """The values on which weights and optimiser depend, by dotted key: seed, environment,
    algorithm, network, and who shares a policy. Numbers of actors and environments, stop rules and
    the distribution policy can change."""
    sections = {
        "env": msgspec.to_builtins(experiment.env),
        "algorithm": dict(experiment.algorithm),
        "network": msgspec.to_builtins(experiment.network),
    }
    flat: dict[str, Setting] = {"seed": experiment.seed}
    for section, values in sections.items():
        flat |= {f"{section}.{key}": value for key, value in _flat(values)}
    match experiment.agents:
        case None | "shared":  # the default; older checkpoints say nothing
            pass
        case str(sharing):
            flat["agents"] = sharing
        case members:
            flat |= {f"agents.{policy}": list(names) for policy, names in members.items()}
    return {key: flat[key] for key in sorted(flat) if key != REPORTS_ONLY}


REPORTS_ONLY = "algorithm.diagnostics"
"""Changes what is reported, and nothing that is learnt."""


def is_identity(key: str) -> bool:
    """Whether a resumed run must keep the value at this dotted key."""
    section, _, name = key.partition(".")
    if key == REPORTS_ONLY:
        return False
    if section == "env":
        return name not in _MAY_CHANGE
    return section in ("seed", "algorithm", "network", "agents")


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, Setting]]:
    for key, value in values.items():
        if isinstance(value, (list, tuple)) and any(isinstance(part, dict) for part in value):
            value = {str(number): part for number, part in enumerate(value)}
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif prefix or key not in _MAY_CHANGE:
            yield f"{prefix}{key}", msgspec.convert(value, Setting)


_DEFAULTS: Mapping[str, Setting] = {
    f"{section}.{key}": value
    for section, spec in (("env", EnvSpec(id="")), ("network", NetworkSpec()))
    for key, value in _flat(msgspec.to_builtins(spec))
}


def identity_sha256(identity: Mapping[str, Setting]) -> str:
    """The same for equal identities, whatever the order of their keys."""
    return hashlib.sha256(msgspec.json.encode(dict(sorted(identity.items())))).hexdigest()


def check_identity(experiment: Experiment, info: CheckpointInfo) -> None:
    """Raises ConfigError, naming the key, if the experiment is not that of a checkpoint."""
    if identity_sha256(info.identity) != info.identity_sha256:
        raise ConfigError("the checksum of its identity does not match", where=info.name)
    wanted = identity_of(experiment)
    for key in sorted({*wanted, *info.identity}):
        # A checkpoint of an older version lacks the keys that have been added since.
        here, there = (values.get(key, _DEFAULTS.get(key)) for values in (wanted, info.identity))
        if here != there:
            raise ConfigError(
                f"{_text(here)} here, but {_text(there)} in the checkpoint",
                where=key,
                fix="a resumed run keeps its environment, algorithm, network and seed;"
                " leave the setting out, or start a new run",
            )


def _text(value: Setting) -> str:
    return "the default" if value is None else msgspec.json.encode(value).decode()


def verify(path: Path) -> CheckpointInfo:
    """Reads the JSON of a checkpoint and verifies its tensors.

    Raises:
        ConfigError: A file is missing, not a regular file, too large, truncated or damaged; or a
            value in it is not finite.
    """
    info = read_info(path)
    tensors = path.with_name(info.tensors_name)
    with open_regular(tensors, info.num_bytes) as file:
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
        if digest.hexdigest() != info.sha256:
            raise ConfigError(
                f"{tensors.name} does not have the checksum of its tensors", where=f"{path}"
            )
        file.seek(0)
        refuse_strange(file, info.num_bytes, path)
    return info


def read_info(path: Path) -> CheckpointInfo:
    """Reads the JSON of a checkpoint.

    Raises:
        ConfigError: It is not such a file, or a release with another format wrote it.
    """
    with open_regular(path) as file:
        return info_of(file.read(MAX_INFO_BYTES + 1), path.name, str(path))


def info_of(data: bytes, name: str, where: str) -> CheckpointInfo:
    """Parses the JSON of a checkpoint; `name` is its file's name, errors name `where`.

    Raises:
        ConfigError: As `read_info`.
    """
    return _FORMAT.parse(data, name, where)


def open_regular(path: Path, num_bytes: int | None = None) -> BinaryIO:
    """Opens a regular file, not a link, without reading it.

    Raises:
        ConfigError: It is something else, cannot be opened, or is not of that size.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error
    state = os.fstat(descriptor)
    problem = None if stat.S_ISREG(state.st_mode) else "not a regular file"
    if problem is None and num_bytes is not None and state.st_size != num_bytes:
        problem = f"{state.st_size} bytes where {num_bytes} were written"
    if problem is not None:
        os.close(descriptor)
        raise ConfigError(problem, where=str(path))
    return os.fdopen(descriptor, "rb")


def tidy(directory: Path, keep: int, keep_best: int) -> None:
    """Removes all checkpoints but the newest `keep` and the best `keep_best`, and unfinished files
    left by crashes."""
    infos = {path: _readable(path) for path in sorted(directory.glob("v*.json"))}
    judged = (info for info in infos.values() if info and info.return_mean is not None)
    best = {info.name for info in sorted(judged, key=rank_of, reverse=True)[:keep_best]}
    for old in list(infos)[:-keep]:
        if old.name not in best:
            old.unlink()
            del infos[old]
    wanted = {info.tensors_name for info in infos.values() if info}
    for tensors in directory.glob("v*.safetensors"):
        if tensors.name not in wanted:
            tensors.unlink()
    for temporary in directory.glob(".v*.tmp"):
        temporary.unlink()


def _readable(path: Path) -> CheckpointInfo | None:
    try:
        return read_info(path)
    except ConfigError:
        return None  # its tensors cannot be found


def rank_of(info: CheckpointInfo) -> tuple[bool, float, int]:
    """Sorts checkpoints by their return; the best has the largest. Of equal ones it is the newest,
    and one without a return comes before all others."""
    mean = info.return_mean
    return (mean is not None, mean or 0.0, info.version)
