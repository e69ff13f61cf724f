"""Compares what an exported policy does with what the engine does, on recorded observations.

Choices must be equal, and reals equal to `TOLERANCE`. Another runtime adds in another order, so the
last digits differ. Where two choices are equally good up to these, it may take the other one; where
large numbers cancel, reals may differ by more. That is recognised by the engine itself: it does the
same with weights that differ by as little.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import gymnasium
import msgspec
import numpy as np
import numpy.typing as npt
import torch

from engine.blame import summary_of
from engine.errors import RunFailedError
from engine.export.greedy_policy import to_tensor
from engine.export.ports import NEXT_STATE, Port, Ports
from engine.export.recording import EngineActing, Recording
from engine.layers.inputs import STATE, Inputs
from engine.trained.load import Trained
from engine.wording import plural

Array: TypeAlias = npt.NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]
Act: TypeAlias = Callable[[Arrays], Arrays]
"""One step of an exported policy, from inputs to outputs by name, each [B, *shape]."""

TOLERANCE = 1e-5
"""Of reals, relative to the larger of 1, their own size and the bounds of their range."""
NUM_TRIALS = 16
NUDGE = 1e-6
"""Standard deviation of a relative change of weights that the last digits of float32 can cause."""
NUM_SINGLES = 16
MAX_WORDS = 300
"""Characters of what an exception says; those of tracers can be pages."""
STEPS_CARRIED = 8
"""After so many steps a memory is taken from the recording again: over hundreds of steps, some
networks make any difference grow, also that of the last digit."""


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a comparison without a contradiction.

    Attributes:
        observations: How many were acted upon.
        steps, environments: How they were recorded.
        largest_difference: Of reals, in the units of `TOLERANCE`: 1e-5 is the most allowed, of
            float16 one unit in the last place.
        sensitive: Observations for which last digits matter: with another choice that is as good,
            or with reals that differ by more, as they do in the engine.
    """

    observations: int
    steps: int
    environments: int
    largest_difference: float
    sensitive: int


def check_agreement(act: Act, recording: Recording, trained: Trained, ports: Ports) -> Agreement:
    """Acts on recorded observations: step by step with its own memory, all at once, and one by one.

    Args:
        act: The exported policy.
        recording: What the engine did.
        trained: The engine's policy.
        ports: The inputs and outputs.

    Raises:
        RunFailedError: An output has another dtype or shape, or differs by more than is allowed.
    """
    act = _guarded(act)
    comparison = _Comparison(trained, ports, recording)
    comparison.compare(_step_by_step(act, recording, ports))
    flat = comparison.flat_inputs
    comparison.compare(act(flat))
    for row in range(0, comparison.num_rows, -(-comparison.num_rows // NUM_SINGLES)):
        one = act({name: values[row : row + 1] for name, values in flat.items()})
        comparison.compare(one, first=row)
    return Agreement(
        observations=comparison.num_rows,
        steps=recording.num_steps,
        environments=recording.num_envs,
        largest_difference=float(comparison.largest),
        sensitive=len(comparison.sensitive),
    )


def _guarded(act: Act) -> Act:
    """The same; whatever it raises is a RunFailedError."""

    def guarded(given: Arrays) -> Arrays:
        try:
            return act(given)
        except Exception as error:
            rows = len(next(iter(given.values())))
            raise _differs(f"for {plural(rows, 'observation')} it raises {told(error)}") from error

    return guarded


def told(error: Exception) -> str:
    """What an exception of a library says, on one short line."""
    words = summary_of(error)
    plain = "".join(character for character in words if character.isprintable())
    return plain if len(plain) <= MAX_WORDS else f"{plain[:MAX_WORDS]}..."


def _step_by_step(act: Act, recording: Recording, ports: Ports) -> dict[str, Array]:
    """The outputs of all steps, [T x B, *shape]; a memory is carried from step to step."""
    rows: list[Arrays] = []
    for step, starts in enumerate(recording.starts):
        given = {port.name: recording.inputs[port.name][step] for port in ports.inputs}
        if ports.state is not None and step % STEPS_CARRIED:
            given[STATE] = np.where(starts[:, None], np.float32(0), rows[-1][NEXT_STATE])
        outputs = act(given)
        for port in ports.outputs:
            _check_kind(port, outputs[port.name], recording.num_envs)
        rows.append(outputs)
    return {port.name: np.concatenate([row[port.name] for row in rows]) for port in ports.outputs}


def _check_kind(port: Port, values: Array, num_rows: int) -> None:
    """Raises RunFailedError unless values have the dtype and shape of a port."""
    found, wanted = (str(values.dtype), values.shape), (port.dtype, (num_rows, *port.shape))
    if found != wanted:
        raise _differs(f"{port.name} is {found[0]} {found[1]}, not {wanted[0]} {wanted[1]}")


class _Comparison:
    """Compares outputs with those of the engine, row by row.

    Attributes:
        num_rows: T x B.
        flat_inputs: [T x B, *shape], states included.
        largest: The largest allowed difference so far.
        sensitive: Rows in which last digits matter.
    """

    def __init__(self, trained: Trained, ports: Ports, recording: Recording) -> None:
        self._trained, self._ports = trained, ports
        self.num_rows = recording.num_steps * recording.num_envs
        self.flat_inputs = {name: _flat(values) for name, values in recording.inputs.items()}
        self._expected = {name: _flat(values) for name, values in recording.outputs.items()}
        self.largest = 0.0
        self.sensitive: set[int] = set()

    def compare(self, outputs: Arrays, first: int = 0) -> None:
        """Compares consecutive rows from `first` on; raises RunFailedError if they differ."""
        num_rows = len(outputs[self._ports.outputs[0].name])
        expected = {name: v[first : first + num_rows] for name, v in self._expected.items()}
        wrong = {}
        for port in self._ports.outputs:
            _check_kind(port, outputs[port.name], num_rows)
            differs, largest = difference(port, outputs[port.name], expected[port.name])
            self.largest, wrong[port.name] = max(self.largest, largest), differs
        rows = np.flatnonzero(np.any(list(wrong.values()), axis=0))
        if len(rows):
            self._explain(outputs, expected, rows, first)

    def _explain(
        self, outputs: Arrays, expected: Arrays, rows: npt.NDArray[np.intp], first: int
    ) -> None:
        """Notes rows in which last digits matter; raises RunFailedError for others.

        Args:
            outputs, expected: Of all rows that are compared.
            rows: Those with a difference.
            first: Number of the first row.
        """
        inputs = {name: values[rows + first] for name, values in self.flat_inputs.items()}
        tried = [self._nudged(inputs, seed) for seed in range(NUM_TRIALS)]
        for port in reversed(self._ports.outputs):  # a wrong memory leads to wrong actions
            found, wanted = outputs[port.name][rows], expected[port.name][rows]
            differs = difference(port, found, wanted)[0]
            differs &= ~explained(port, found, wanted, [one[port.name] for one in tried])
            if differs.any():
                row = int(differs.argmax())
                raise _differs(
                    f"{port.name} is {found[row].tolist()!r:.60}, not"
                    f" {wanted[row].tolist()!r:.60}, for observation {first + rows[row]} of"
                    f" {self.num_rows}, and {int(differs.sum()) - 1} more like that"
                )
        self.sensitive |= set((rows + first).tolist())

    def _nudged(self, inputs: Arrays, seed: int) -> dict[str, Array]:
        """What the engine chooses with weights that differ in their last digits."""
        network = copy.deepcopy(self._trained.network)
        generator = torch.Generator().manual_seed(seed)
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.mul_(1 + NUDGE * noise)
        return act_of_engine(self._trained, self._ports, inputs, network)


def act_of_engine(
    trained: Trained, ports: Ports, inputs: Arrays, network: torch.nn.Module | None = None
) -> dict[str, Array]:
    """What the engine chooses, as the environment takes it, and remembers: [N, *shape] by port.

    Args:
        trained: The algorithm and the network.
        ports: The inputs and outputs.
        inputs: [N, *shape] by port, a state included.
        network: Acts with it instead.
    """
    by_name = {field.name: field.dtype for field in trained.fields}
    given = {
        port.name: to_tensor(np.asarray(inputs[port.name], by_name[port.name]))
        for port in ports.inputs
    }
    only: Inputs = next(iter(given.values())) if len(given) == 1 else given
    engine = EngineActing(trained, ports)
    with torch.inference_mode():
        chosen = engine.choose(network or trained.network, only)
    action = chosen if isinstance(chosen, torch.Tensor) else chosen["action"]
    return {**engine.last, **engine.actions(action.numpy())}


def difference(
    port: Port, values: Array, expected: Array, tolerance: float = TOLERANCE
) -> tuple[npt.NDArray[np.bool_], float]:
    """Which rows [N] differ by more than is allowed; and the largest difference among others."""
    axes = tuple(range(1, values.ndim))
    if is_choice(port):
        return np.any(values != expected, axis=axes), 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        apart = np.abs(values.astype(np.float64) - expected.astype(np.float64))
        relative = apart / _scale(port, expected)
    allowed = tolerance
    if values.dtype.kind == "f":
        allowed = max(allowed, float(np.finfo(values.dtype).eps))
    differs = np.any(~(relative <= allowed), axis=axes)
    same = relative[~differs]
    return differs, float(same.max()) if same.size else 0.0


def explained(
    port: Port, values: Array, expected: Array, tried: Sequence[Array]
) -> npt.NDArray[np.bool_]:
    """Which rows [N] differ only as the engine does with other last digits.

    Args:
        port: What the values are.
        values, expected: [N, *shape].
        tried: The same of the engine with weights that differ by as little.
    """
    if is_choice(port):
        differs = [difference(port, values, one)[0] for one in tried]
        return np.asarray(~np.all(differs, axis=0))
    wanted = expected.astype(np.float64)
    spread = np.max([np.abs(one.astype(np.float64) - wanted) for one in tried], axis=0)
    axes = tuple(range(1, values.ndim))
    return np.asarray(np.all(np.abs(values.astype(np.float64) - wanted) <= spread, axis=axes))


def is_choice(port: Port) -> bool:
    """Whether its values are choices, so that any difference counts."""
    return port.kind == "action" and not isinstance(port.space, gymnasium.spaces.Box)


def _scale(port: Port, expected: Array) -> npt.NDArray[np.float64]:
    """The size that differences are relative to, at least 1, like `expected`."""
    sizes = [np.ones(()), np.abs(expected.astype(np.float64))]
    if isinstance(port.space, gymnasium.spaces.Box):
        for bound in (port.space.low, port.space.high):
            size = np.abs(bound.astype(np.float64))
            sizes.append(np.where(np.isfinite(size), size, 1.0))
    largest = sizes[0]
    for size in sizes[1:]:
        largest = np.maximum(largest, size)
    return np.asarray(largest, np.float64)


def _flat(values: Array) -> Array:
    return values.reshape(-1, *values.shape[2:])


def _differs(what: str) -> RunFailedError:
    return RunFailedError(
        f"the exported policy does not act as the trained one does: {what}",
        fix="nothing was written. An export has the operations of one step as they were traced: in"
        " networks and algorithms of your own, let no Python code depend on values of tensors or on"
        " the number of rows",
    )
