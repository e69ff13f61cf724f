"""Which weights of a former run a new one starts with: tensors match by name, type and shape.

The tensors of one module are taken together or not at all: a bias means nothing without its
weights, nor a running mean without its variance. Parameters that follow a schedule, such as the
epsilon of Q-learning, begin anew, as the schedule does. Pure, and without torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from engine.progress import Count
from engine.wording import plural

WEIGHTS_NAME = "initial_weights.safetensors"
"""In a run's directory: the tensors that it took from a former run, by parameter."""
NETWORK_PREFIX = "network."
"""Of the names of a checkpoint's tensors that are parameters of the network."""
MAX_LISTED = 12


class SavedTensor(msgspec.Struct, frozen=True):
    """A tensor of a checkpoint; `dtype` as in safetensors, such as `F32`."""

    dtype: str
    shape: tuple[int, ...]


class WantedTensor(msgspec.Struct, frozen=True):
    """A parameter of the new network, float32.

    Attributes:
        shape: Its shape.
        learns: Whether a gradient reaches it.
        is_scheduled: Whether the algorithm sets it as a function of its progress.
    """

    shape: tuple[int, ...]
    learns: bool = True
    is_scheduled: bool = False


class TakenWeights(msgspec.Struct, frozen=True, kw_only=True):
    """The result of comparing a checkpoint with a network.

    Attributes:
        taken: Parameters whose values are those of the checkpoint.
        kept: Parameters that keep their initial values, with the reason.
        unused: Tensors of the checkpoint for which the network has no parameter.
        num_taken, num_parameters: Numbers in the tensors taken, and in all of the network.
        has_learnt: Whether anything taken was learnt: running statistics alone are not.
    """

    taken: tuple[str, ...]
    kept: dict[str, str]
    unused: tuple[str, ...] = ()
    num_taken: Count
    num_parameters: Count
    has_learnt: bool

    @property
    def summary(self) -> str:
        """Such as `8 of 10 tensors, 4,610 of 4,740 parameters`."""
        num_tensors = len(self.taken) + len(self.kept)
        if not self.kept:
            return f"all {plural(num_tensors, 'tensor')}, {plural(self.num_taken, 'parameter')}"
        of_all = plural(self.num_parameters, "parameter")
        return (
            f"{len(self.taken)} of {plural(num_tensors, 'tensor')}, {self.num_taken:,} of {of_all}"
        )

    @property
    def words(self) -> list[str]:
        """What was not taken, and what was not used; by module, one message per line."""
        lines = []
        if self.kept:
            reasons: dict[str, str] = {}
            for name, why in self.kept.items():
                reasons.setdefault(_module_of(name), f"{name} {why}")
            lines.append(f"initial values instead: {_listed(reasons.values())}")
        if self.unused:
            modules = dict.fromkeys(_module_of(name) or name for name in self.unused)
            lines.append(f"not used of that run: {_listed(modules)}")
        return lines


class WarmStart(msgspec.Struct, frozen=True, kw_only=True):
    """The weights that a run starts with; only these, and neither optimiser nor counters.

    Attributes:
        run_id: The run that trained them.
        checkpoint: Name of its JSON file there.
        version: Of the weights there.
        return_mean: The return that the checkpoint was written at; None if it is not known.
        weights: Which of them.
        num_bytes, sha256: Of the file with them in this run's directory.
    """

    run_id: str
    checkpoint: str
    version: Count
    return_mean: float | None = None
    weights: TakenWeights
    num_bytes: Count
    sha256: str

    @property
    def words(self) -> str:
        """What was taken of which run and what was not, in one line."""
        origin = f"version {self.version} of run {self.run_id}: {self.weights.summary}"
        return "; ".join([origin, *self.weights.words])


def match(saved: Mapping[str, SavedTensor], wanted: Mapping[str, WantedTensor]) -> TakenWeights:
    """Compares the network of a checkpoint with that of a new run.

    Args:
        saved: The network's tensors in the checkpoint, by parameter.
        wanted: The parameters of the new network, in their order.
    """
    reasons = {name: _difference(saved.get(name), tensor) for name, tensor in wanted.items()}
    broken: dict[str, str] = {}
    for name, why in reasons.items():
        if why and not wanted[name].is_scheduled:
            broken.setdefault(_module_of(name), name)
    kept = {}
    for name, why in reasons.items():
        first = broken.get(_module_of(name))
        if wanted[name].is_scheduled:
            kept[name] = "follows its schedule"
        elif why or first:
            kept[name] = why or f"is left with {first}"
    taken = [name for name in wanted if name not in kept]
    return TakenWeights(
        taken=tuple(taken),
        kept=kept,
        unused=tuple(name for name in saved if name not in wanted),
        num_taken=sum(math.prod(wanted[name].shape) for name in taken),
        num_parameters=sum(math.prod(tensor.shape) for tensor in wanted.values()),
        has_learnt=any(wanted[name].learns for name in taken),
    )


def _difference(saved: SavedTensor | None, wanted: WantedTensor) -> str:
    """Why a tensor does not fit, as the end of a sentence; empty if it does."""
    if saved is None:
        return "is not in that run"
    if saved.shape != wanted.shape:
        return f"is {list(wanted.shape)} here, {list(saved.shape)} there"
    return "" if saved.dtype == "F32" else f"is F32 here, {saved.dtype} there"


def _module_of(name: str) -> str:
    return name.rpartition(".")[0]


def _listed(texts: Iterable[str]) -> str:
    found = list(texts)
    rest = len(found) - MAX_LISTED
    return ", ".join(found[:MAX_LISTED]) + (f" and {rest:,} more" if rest > 0 else "")
