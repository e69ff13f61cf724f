"""Finds the weights that `init_from: RUN[@checkpoint]` names, and puts those that fit into a run.

They are data: of the former run nothing is imported, started or executed. What is used is copied
into the new run, which then no longer needs the old one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError
from engine.messages import role_of
from engine.spec import Experiment
from engine.trace.checkpoint_choice import (
    ChosenCheckpoint,
    Which,
    parse_which,
    words_of,
)
from engine.trace.checkpoint_file import CheckpointInfo, open_regular
from engine.trace.tensor_file import PREFIX, TensorInfo, header_size, read_header
from engine.trace.warm_start import (
    MAX_LISTED,
    NETWORK_PREFIX,
    WEIGHTS_NAME,
    SavedTensor,
    TakenWeights,
    WarmStart,
)
from engine.trained.run import experiment_of
from tianji_cli.connectors.base import Node
from tianji_cli.runs.manifest import DECIDING
from tianji_cli.runs.trained import choose_here
from tianji_cli.storage.consent import Consent
from tianji_cli.storage.json_files import read_document
from tianji_cli.storage.ownership import checksum_of, is_own
from tianji_cli.storage.run_dir import RunPaths, resolve_run

KEY = "init_from"
_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class InitialWeights:
    """The weights that a run starts with.

    Attributes:
        warm_start: Which they are.
        data: A safetensors file with exactly these.
    """

    warm_start: WarmStart
    data: bytes

    def copy_to(self, paths: RunPaths) -> None:
        """Writes them into the new run.

        Raises:
            OSError: They cannot be written.
        """
        paths.initial_weights.write_bytes(self.data)

    def ship(self, node: Node, run_dir: str, roles: Collection[str]) -> None:
        """Copies them to a remote host, if one of its roles begins with them.

        Raises:
            HostUnreachableError: The host cannot be reached.
        """
        if any(role_of(role) != "buffer" for role in roles):
            node.put(f"{run_dir}/{WEIGHTS_NAME}", self.data)


@dataclass(frozen=True)
class WeightsSource:
    """The checkpoint of a former run whose weights are wanted.

    Attributes:
        run_id: That run.
        experiment: That run's.
        chosen: The checkpoint.
        tensors: The parameters of its network.
    """

    run_id: str
    experiment: Experiment
    chosen: ChosenCheckpoint
    tensors: dict[str, SavedTensor]

    @property
    def name(self) -> str:
        """Such as `day1, version 120, return 487.2 (evaluation)`."""
        return f"{self.run_id}, {words_of(self.chosen.info)}"

    def words(self, taken: TakenWeights) -> list[str]:
        """Messages about what is taken and what is not, one per line."""
        return [
            *(f"damaged, so another is used: {text}" for text in self.chosen.refused),
            f"starts with weights of {self.name}: {taken.summary}",
            *taken.words,
        ]

    def check(self, taken: TakenWeights) -> None:
        """Raises ConfigError, with the reasons, if no weights fit."""
        if taken.has_learnt:
            return
        reasons = [f"{name} {why}" for name, why in taken.kept.items()][:MAX_LISTED]
        rest = len(taken.kept) - len(reasons)
        lines = "".join(f"\n    {text}" for text in reasons)
        more = f"\n    and {rest:,} more" if rest else ""
        whose = f"{self.experiment.algorithm_name} on {self.experiment.env.id}"
        raise ConfigError(
            f"no weights of {self.name} ({whose}) fit this network{lines}{more}",
            where=KEY,
            fix="choose a run with such a network, or leave it out",
        )

    def take(self, taken: TakenWeights) -> InitialWeights:
        """Reads the weights that fit.

        Raises:
            ConfigError: None fit, or the files have changed or are gone.
        """
        self.check(taken)
        info = self.chosen.info
        data = _extracted(self.chosen.path, info, taken.taken)
        warm_start = WarmStart(
            run_id=self.run_id,
            checkpoint=info.name,
            version=info.version,
            return_mean=info.return_mean,
            weights=taken,
            num_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        return InitialWeights(warm_start, data)


def find_weights(results: Path, text: str, consent: Consent) -> WeightsSource:
    """Finds a checkpoint by `RUN` or `RUN@CHECKPOINT`.

    Args:
        results: The results directory.
        text: A run's id, a unique prefix of one, or its path; then `best`, `last` or a version.
        consent: Asked before using weights of a run that was not started here.

    Raises:
        ConfigError: There is no such run or checkpoint, or the user does not agree.
    """
    name, which = split_name(text)
    paths = resolve_run(results, name)
    data, where = read_document(paths.manifest), str(paths.manifest)
    experiment = experiment_of(data, where)
    chosen = choose_here(paths, which)
    if not is_own(checksum_of(data, only=DECIDING)):
        words = [
            f"experiment {experiment.name}: {experiment.algorithm_name} on {experiment.env.id}",
            f"weights of {words_of(chosen.info)}; nothing else of it is used",
        ]
        consent.need(_checksum_of(chosen.info), "run", where, words)
    header = _header(chosen.path, chosen.info)
    tensors = {
        name.removeprefix(NETWORK_PREFIX): SavedTensor(info.dtype, tuple(info.shape))
        for name, info in header.items()
        if name.startswith(NETWORK_PREFIX)
    }
    return WeightsSource(paths.run_id, experiment, chosen, tensors)


def split_name(text: str) -> tuple[str, Which]:
    """A run, and which of its checkpoints; the newest if nothing else is said.

    Raises:
        ConfigError: What follows the `@` names no checkpoint.

    >>> split_name("day1@best"), split_name("results/day1@120"), split_name("day1")
    (('day1', 'best'), ('results/day1', 120), ('day1', 'last'))
    """
    run, at, which = text.rpartition("@")
    if not at or (Path(text) / "manifest.json").is_file():  # a directory's name can have an @
        return text, "last"
    return run, parse_which(which, KEY)


def _checksum_of(info: CheckpointInfo) -> str:
    """Of a consent to these weights alone, which is none to what the run's manifest names."""
    return hashlib.sha256(f"weights {info.info_sha256}".encode()).hexdigest()


def _header(path: Path, info: CheckpointInfo) -> dict[str, TensorInfo]:
    tensors = path.with_name(info.tensors_name)
    with open_regular(tensors, info.num_bytes) as file:
        prefix = file.read(PREFIX.size)
        rest = file.read(header_size(prefix, info.num_bytes, tensors))
    return read_header(prefix, rest, info.num_bytes, tensors)


def _extracted(path: Path, info: CheckpointInfo, names: tuple[str, ...]) -> bytes:
    """A safetensors file with some parameters of a checkpoint's network, float32.

    Raises:
        ConfigError: The checkpoint is gone, or is not what it was, or its header lies.
    """
    tensors = path.with_name(info.tensors_name)
    found = _header(path, info)
    header, body, position = {}, [], 0
    with open_regular(tensors, info.num_bytes) as file:
        begin = PREFIX.size + header_size(file.read(PREFIX.size), info.num_bytes, tensors)
        for name in names:
            tensor = found.get(NETWORK_PREFIX + name)
            num_bytes = _FLOAT32_BYTES * math.prod(tensor.shape) if tensor else 0
            if tensor is None or tensor.data_offsets[1] - tensor.data_offsets[0] != num_bytes:
                raise ConfigError(f"it holds no whole {name}", where=str(tensors))
            file.seek(begin + tensor.data_offsets[0])
            body.append(file.read(num_bytes))
            offsets = [position, position := position + num_bytes]
            header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % PREFIX.size)
    return b"".join([PREFIX.pack(len(text)), text, *body])
