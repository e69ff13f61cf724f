"""What PyTorch's elementwise operations are in C++.

Operands are converted to the type that is computed in before they are put in; functions that C++
does not have are those of `functions.cpp`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from engine.compilation.native.places import TYPES, UnsupportedError

Scalar = bool | int | float
Template = str | Callable[[Sequence[object]], str]
"""With {0}, {1}, ... for operands; or a function of the arguments that returns that."""

_POWERS: Mapping[float, str] = {0.5: "root({0})", 1: "{0}", 2: "{0} * {0}", 3: "{0} * {0} * {0}"}


def _power(arguments: Sequence[object]) -> str:
    exponent = arguments[1]
    known = _POWERS.get(exponent) if isinstance(exponent, int | float) else None
    return known or "power({0}, {1})"


def _clamp(arguments: Sequence[object]) -> str:
    low, high = (*arguments, None, None)[1:3]
    text = "{0}" if low is None else "larger({0}, {1})"
    return text if high is None else f"smaller({text}, {{2}})"


def _remainder(arguments: Sequence[object]) -> str:
    if not isinstance(arguments[1], int) or arguments[1] in (0, -1):
        raise UnsupportedError("a remainder of division by a fraction, 0 or -1")
    return "({0} % {1} + {1}) % {1}"


def _lerp(arguments: Sequence[object]) -> str:
    weight = arguments[2]
    near, far = "{0} + {2} * ({1} - {0})", "{1} - ({1} - {0}) * (1 - {2})"
    if isinstance(weight, int | float):
        return near if weight < 0.5 else far
    return f"{{2}} < 0.5f ? {near} : {far}"


def _elu(arguments: Sequence[object]) -> str:
    if any(each != 1 for each in arguments[1:]):
        raise UnsupportedError("elu with factors")
    return "{0} > 0 ? {0} : exponential_minus_1({0})"


def _elu_gradient(arguments: Sequence[object]) -> str:
    _, *factors, is_result, _ = arguments
    if any(each != 1 for each in factors):
        raise UnsupportedError("elu with factors")
    return f"{{5}} > 0 ? {{0}} : {{0}} * {'({5} + 1)' if is_result else 'exponential({5})'}"


def _softplus(arguments: Sequence[object]) -> str:
    beta = "{1}" if len(arguments) > 1 else "1.0f"
    threshold = "{2}" if len(arguments) > 2 else "20.0f"
    soft = f"log_of_1_and(exponential({{0}} * {beta})) / {beta}"
    return f"{{0}} * {beta} > {threshold} ? {{0}} : {soft}"


def _smooth_l1_loss(arguments: Sequence[object]) -> str:
    if len(arguments) < 3 or arguments[2] != 0:
        raise UnsupportedError("a loss that is reduced")
    beta = "{3}" if len(arguments) > 3 else "1.0f"
    distance = "absolute({0} - {1})"
    near = f"0.5f * ({{0}} - {{1}}) * ({{0}} - {{1}}) / {beta}"
    return f"{distance} < {beta} ? {near} : {distance} - 0.5f * {beta}"


def _smooth_l1_gradient(arguments: Sequence[object]) -> str:
    if arguments[3] != 0:
        raise UnsupportedError("a loss that is reduced")
    near = "{0} * ({1} - {2}) / {4}"
    return f"{{1}} - {{2}} <= -{{4}} ? -{{0}} : {{1}} - {{2}} >= {{4}} ? {{0}} : {near}"


ELEMENTWISE: Mapping[str, Template] = {
    "abs": "absolute({0})",
    "add": "{0} + {1}",
    "addcdiv": "{0} + {1} / {2}",
    "addcmul": "{0} + {1} * {2}",
    "bitwise_and": "{0} & {1}",
    "bitwise_not": "~{0}",
    "bitwise_or": "{0} | {1}",
    "bitwise_xor": "{0} ^ {1}",
    "clamp": _clamp,
    "clamp_max": "smaller({0}, {1})",
    "clamp_min": "larger({0}, {1})",
    "clone": "{0}",
    "contiguous": "{0}",
    "cos": "cosine({0})",
    "div": "{0} / {1}",
    "elu": _elu,
    "elu_backward": _elu_gradient,
    "erf": "error_function({0})",
    "exp": "exponential({0})",
    "fill": "{1}",
    "lerp": _lerp,
    "lift_fresh_copy": "{0}",
    "log": "logarithm({0})",
    "log1p": "log_of_1_and({0})",
    "masked_fill": "{1} ? {2} : {0}",
    "maximum": "larger({0}, {1})",
    "minimum": "smaller({0}, {1})",
    "mul": "{0} * {1}",
    "neg": "-{0}",
    "pow": _power,
    "reciprocal": "1 / {0}",
    "relu": "{0} < 0 ? 0 : {0}",
    "remainder": _remainder,
    "rsqrt": "1 / root({0})",
    "rsub": "{1} - {0}",
    "sigmoid": "1 / (1 + exponential(-{0}))",
    "sigmoid_backward": "{0} * (1 - {1}) * {1}",
    "sgn": "({0} > 0) - ({0} < 0)",
    "sign": "({0} > 0) - ({0} < 0)",
    "silu": "{0} / (1 + exponential(-{0}))",
    "sin": "sine({0})",
    "smooth_l1_loss": _smooth_l1_loss,
    "smooth_l1_loss_backward": _smooth_l1_gradient,
    "softplus": _softplus,
    "softplus_backward": "{1} * {2} > {3} ? {0} : {0} - {0} / (1 + exponential({1} * {2}))",
    "sqrt": "root({0})",
    "square": "{0} * {0}",
    "sub": "{0} - {1}",
    "tanh": "hyperbolic_tangent({0})",
    "tanh_backward": "{0} * (1 - {1} * {1})",
    "threshold_backward": "{1} <= {2} ? 0 : {0}",
    "_to_copy": "{0}",
    "where": "{0} ? {1} : {2}",
}
"""By the name of the operation, computed in the type of the result."""

CHOICE = "(({0}) ? ({1}) : ({2}))"
"""What `where` becomes."""

COMPARISONS: Mapping[str, str] = {
    "eq": "{0} == {1}",
    "ge": "{0} >= {1}",
    "gt": "{0} > {1}",
    "isfinite": "{0} - {0} == 0",
    "isinf": "({0} - {0} != 0) & ({0} == {0})",
    "isnan": "{0} != {0}",
    "le": "{0} <= {1}",
    "logical_and": "({0} != 0) & ({1} != 0)",
    "logical_not": "{0} == 0",
    "logical_or": "({0} != 0) | ({1} != 0)",
    "logical_xor": "({0} != 0) != ({1} != 0)",
    "lt": "{0} < {1}",
    "ne": "{0} != {1}",
}
"""The same, computed in the type of the operands."""

CONDITIONS: Mapping[str, int] = {"where": 0, "masked_fill": 1}
"""Which operand is a condition, and stays of its type."""


def literal(value: Scalar, dtype: torch.dtype) -> str:
    """A number in C++, converted as PyTorch does: any but 0 is true, and below 0 there is what
    overflow gives."""
    if dtype == torch.bool:
        return f"{int(bool(value))}L"
    if not dtype.is_floating_point:
        limits = torch.iinfo(dtype)
        return f"{(int(value) - limits.min) % (1 << limits.bits) + limits.min}L"
    suffix = "f" if dtype == torch.float32 else ""
    if math.isnan(value):
        return f'__builtin_nan{suffix}("")'
    if math.isinf(value):
        return f"{'-' if value < 0 else ''}__builtin_inf{suffix}()"
    return f"{float(value)!r}{suffix}"


def converted(text: str, of: torch.dtype, to: torch.dtype) -> str:
    """A value in another type."""
    if of == to:
        return text
    return f"({text} != 0)" if to == torch.bool else f"({TYPES[to]})({text})"
