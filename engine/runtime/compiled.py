"""Compiled optimiser steps: found in a cache, checked against what is asked, called.

A library holds one gradient step with fixed shapes, the choice of its minibatch included, and lies
beside a `Signature` that says what it may be called with. Anything else is done eagerly, so a
library can be unsuitable but never wrong.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from engine.algorithms import gradient
from engine.algorithms.gradient import EagerSteps, GradientStep, Order, Samples, Trainable
from engine.runtime.blueprint import Blueprint
from engine.runtime.facts import processor_features


class TensorSignature(msgspec.Struct, frozen=True):
    """What a compiled function relies on in one argument."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, tensor: Tensor) -> TensorSignature:
        return cls(tuple(tensor.shape), tensor.stride(), str(tensor.dtype))


class Signature(msgspec.Struct, frozen=True):
    """What a library may be called with.

    Attributes:
        samples: By name.
        rows: Of one minibatch; None if the samples are the minibatch.
        num_parameters: P.
    """

    samples: dict[str, TensorSignature]
    rows: TensorSignature | None
    num_parameters: int


class CompiledSteps:
    """A `StepTaker` that calls a library.

    Args:
        library: As `engine.runtime.compiler` makes them; its signature beside it.

    Raises:
        OSError: There is no such library, or no signature.
        msgspec.DecodeError: The signature is not one.
        RuntimeError: It does not fit this machine or this PyTorch.
    """

    def __init__(self, library: Path) -> None:
        self._signature = msgspec.json.decode(signature_path(library).read_bytes(), type=Signature)
        self._names = sorted(self._signature.samples)
        self._runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(library), 1)
        self._step: GradientStep | None = None
        self._eager = EagerSteps()

    def take(
        self,
        state: Trainable,
        step: GradientStep,
        samples: Samples,
        order: Order | None = None,
        rate: float = 1.0,
    ) -> Tensor:
        """See `StepTaker`. The first step that fits is the one that was compiled."""
        is_ours = self._step is None or step is self._step
        if not is_ours or not self._fits(state, samples, order):
            return self._eager.take(state, step, samples, order, rate)
        self._step = step
        with torch.no_grad():
            return self._call(state, samples, order, rate)

    def _call(self, state: Trainable, samples: Samples, order: Order | None, rate: float) -> Tensor:
        arguments = [state.weights.vector.detach(), *state.optimizer.named_tensors().values()]
        arguments += [torch.tensor(rate), *(samples[name] for name in self._names)]
        minibatches = [[]] if order is None else [[rows] for rows in order]
        return torch.stack([self._runner.run(arguments + rows)[0] for rows in minibatches])

    def _fits(self, state: Trainable, samples: Samples, order: Order | None) -> bool:
        signature = self._signature
        if state.weights.vector.numel() != signature.num_parameters:
            return False
        rows = None if order is None else TensorSignature.of(order[0])
        if rows != signature.rows:
            return False
        return signature.samples == {name: TensorSignature.of(t) for name, t in samples.items()}


def signature_path(library: Path) -> Path:
    """Where the signature of a library lies. It is written last, so it says: complete."""
    return library.with_suffix(".json")


def cache_directory() -> Path:
    """Where libraries are kept from run to run: `$XDG_CACHE_HOME/tianji`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tianji"


def library_path(blueprint: Blueprint) -> Path:
    """The library of this experiment's steps, for this machine, PyTorch and source code."""
    experiment = blueprint.experiment
    described = msgspec.json.encode(
        (
            experiment.algorithm,
            experiment.network,
            experiment.modules,
            blueprint.layout.digest,
            blueprint.rollouts_per_batch,
            blueprint.weights.digest,
            str(torch.__version__),
            processor_features(),
            sys.version,
        )
    )
    digest = hashlib.blake2b(described, digest_size=16)
    for path in sorted(_sources(blueprint)):
        digest.update(path.read_bytes())
    return cache_directory() / f"steps-{digest.hexdigest()}.so"


def _sources(blueprint: Blueprint) -> Iterable[Path]:
    """Source files that decide what the steps compute."""
    yield from Path(inspect.getfile(gradient)).parent.glob("*.py")
    for name in blueprint.experiment.modules:
        path = Path(inspect.getfile(sys.modules[name]))
        yield from path.parent.rglob("*.py") if path.name == "__init__.py" else (path,)
