"""What comes before the steps of an update, by a compiled library: `engine.algorithms.returns`.

(parameters; tensors of the batch; what is computed, which is written)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from engine.algorithms.gradient import pieces_of
from engine.algorithms.returns import EagerPreparing, FlatNetwork, Judge
from engine.blueprint import Blueprint
from engine.compilation.fit import Fit
from engine.compilation.library import Library, describe
from engine.compilation.tracing import Traced, batch_of_zeros, trace

_GIVEN, _MADE = "batch.", "made."


class CompiledPreparing:
    """A `Preparing` that calls a library.

    Args:
        library: Of the kind `prepare`.

    Attributes:
        fit: Whether calls fit it.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        made = {n: s for n, s in library.signature.items() if n.startswith(_MADE)}
        self.fit = Fit({n: s for n, s in library.signature.items() if n not in made})
        self._made = {
            name.removeprefix(_MADE): (one.shape, getattr(torch, one.dtype.removeprefix("torch.")))
            for name, one in made.items()
        }
        self._judge: Judge | None = None
        self._eager = EagerPreparing()

    def run(self, of: FlatNetwork, judge: Judge, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Preparing`. The first function that fits the signature is the one that was
        compiled."""
        is_ours = self._judge is None or judge == self._judge
        if not is_ours or not self.fit.takes(_named(of, batch)):
            return self._eager.run(of, judge, batch)
        self._judge = judge
        made = {
            name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in self._made.items()
        }
        fixed = [of.weights.vector.detach(), *(batch[name] for name in sorted(batch))]
        self._library.scan(fixed, [made[name].unsqueeze(0) for name in sorted(made)])
        return made


def _named(of: FlatNetwork, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is given, by the name that it has in a signature."""
    return {"vector": of.weights.vector, **{_GIVEN + name: batch[name] for name in sorted(batch)}}


class PreparingRecorder:
    """Computes in eager mode and records the first call."""

    def __init__(self) -> None:
        self.recorded: tuple[FlatNetwork, Judge] | None = None
        self.batch: dict[str, Tensor] = {}
        self.made: dict[str, Tensor] = {}

    def run(self, of: FlatNetwork, judge: Judge, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Preparing`."""
        made = EagerPreparing().run(of, judge, batch)
        if self.recorded is None:
            self.recorded, self.batch, self.made = (of, judge), dict(batch), made
        return made


def trace_prepare(blueprint: Blueprint) -> Traced:
    """What is computed before the steps: writes it into its last arguments.

    Raises:
        RuntimeError, AssertionError: Nothing is, or it is not a pure function of its arguments.
    """
    state = blueprint.algorithm.init(0)
    state.preparing = recorder = PreparingRecorder()
    blueprint.algorithm.update(state, batch_of_zeros(blueprint))
    if recorder.recorded is None:
        raise RuntimeError("the algorithm computes nothing through state.preparing")
    of, judge = recorder.recorded
    made = {  # contiguous as in `CompiledPreparing`, whatever the eager result is a view of
        name: torch.empty_like(recorder.made[name], memory_format=torch.contiguous_format)
        for name in sorted(recorder.made)
    }
    arguments = [
        of.weights.vector.detach(),
        *(recorder.batch[name] for name in sorted(recorder.batch)),
        *made.values(),
    ]
    function = _PrepareFunction(of.network, judge, sorted(recorder.batch), list(made))
    signature = describe(_named(of, recorder.batch))
    signature |= describe({_MADE + name: values for name, values in made.items()})
    return trace(function, arguments, signature)


class _PrepareFunction:
    """The function with flat arguments, in place on the last ones."""

    def __init__(self, network: nn.Module, judge: Judge, given: list[str], made: list[str]) -> None:
        self._bound = _BoundJudge(network, judge)
        self._shapes = [(name, p.shape) for name, p in self._bound.named_parameters()]
        self._given, self._made = given, made

    def __call__(self, vector: Tensor, *arguments: Tensor) -> tuple[Tensor, ...]:
        batch = dict(zip(self._given, arguments, strict=False))
        with torch.no_grad():
            pieces = pieces_of(vector, self._shapes)
            made: dict[str, Tensor] = functional_call(self._bound, pieces, (batch,))
        for name, to in zip(self._made, arguments[len(self._given) :], strict=True):
            to.copy_(made[name])
        return ()


class _BoundJudge(nn.Module):
    """The function as a module, so that its parameters can be exchanged."""

    def __init__(self, network: nn.Module, judge: Judge) -> None:
        super().__init__()
        self.network = network
        self._judge = judge

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self._judge(self.network, batch)
