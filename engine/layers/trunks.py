"""Trunks: from an observation to features. Heads are in `engine.algorithms.networks`.

A trunk takes float32 [N, *observation_shape], already scaled, and gives [N, num_features].
Images can have their channels first, like Atari's frame stacks, or last, like MinAtar's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from engine.blame import blamed
from engine.config.config_file import suggest
from engine.errors import ConfigError
from engine.layers.pixels import (
    PATCH,
    ChannelsFirst,
    ChannelsLastInMemory,
    PatchConv2d,
    fits_patches,
)
from engine.spec import NetworkSpec

_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}
SMALL_IMAGE_PIXELS = 36
"""An image with a shorter side is too small for the Nature CNN's strides."""

WIDE = 900_000
"""Number of weights; fewer fit into a core's own cache."""
MIN_ROWS = 4
"""From this many rows on, `WideLinear` multiplies from the left; two in float32 get slower."""

TrunkBuilder: TypeAlias = Callable[[tuple[int, ...], NetworkSpec], nn.Module]


@dataclass(frozen=True)
class TrunkEntry:
    """How to build a trunk, whether policy and value share one, and if it takes pixels as bytes."""

    build: TrunkBuilder
    is_shared: bool
    takes_bytes: bool = False


def register_network(name: str, build: TrunkBuilder, *, is_shared: bool = True) -> None:
    """Registers a trunk under the name for `network.name`.

    Args:
        name: Not yet taken.
        build: Called with the observation's shape and the network's spec; gives a module from
            float32 [N, *shape] to [N, num_features]. All its parameters must be float32.
        is_shared: Whether policy and value share one, where an algorithm has both.

    Raises:
        ConfigError: The name is taken.
    """
    if name in TRUNKS:
        raise ConfigError(f"a network {name!r} exists already", where="modules")
    TRUNKS[name] = TrunkEntry(build, is_shared)


def trunk_name(observation_shape: Sequence[int], spec: NetworkSpec) -> str:
    """The name in the spec; without one, a trunk for the shape.

    Three axes mean an image: `nature_cnn`, or `minatar_cnn` if it is small. Otherwise: `mlp`.
    """
    if spec.name is not None:
        return spec.name
    if len(observation_shape) != 3:
        return "mlp"
    side = sorted(observation_shape)[1]
    return "minatar_cnn" if side < SMALL_IMAGE_PIXELS else "nature_cnn"


def find_trunk(observation_shape: Sequence[int], spec: NetworkSpec) -> TrunkEntry:
    """Looks a trunk up.

    Raises:
        ConfigError: There is none of that name.
    """
    name = trunk_name(observation_shape, spec)
    if name not in TRUNKS:
        raise ConfigError(
            f"unknown network {name!r}", where="network.name", fix=suggest(name, TRUNKS)
        )
    return TRUNKS[name]


def takes_bytes(observation_shape: tuple[int, ...], spec: NetworkSpec) -> bool:
    """Whether the trunk takes unsigned bytes unscaled rather than scaled to [0, 1].

    Raises:
        ConfigError: Unknown name.
    """
    entry = find_trunk(observation_shape, spec)
    is_half = spec.precision == "bfloat16"
    return (
        entry.takes_bytes
        and is_half
        and _is_channels_first(observation_shape)
        and fits_patches(observation_shape)
    )


def build_trunk(observation_shape: tuple[int, ...], spec: NetworkSpec) -> tuple[nn.Module, int]:
    """Builds the trunk that the spec names.

    Returns:
        The trunk and its number of features.

    Raises:
        ConfigError: Unknown name, or observations that it cannot take.
    """
    name, entry = trunk_name(observation_shape, spec), find_trunk(observation_shape, spec)
    with blamed(f"{name} cannot be built for {observation_shape}", where="network.name"):
        trunk = entry.build(observation_shape, spec)
        trunk = in_precision(trunk, spec)
    refuse_parameters(name, trunk)
    what = f"{name} cannot take observations of shape {observation_shape}"
    with blamed(what, where="network.name"), torch.no_grad():
        features = trunk(torch.zeros(ROWS_TRIED, *observation_shape))
    _check_features(name, features)
    return trunk, int(features.shape[-1])


def refuse_parameters(name: str, network: nn.Module) -> None:
    """Raises ConfigError for parameters that are not float32 or not finite."""
    parameters = {path: p.detach() for path, p in network.named_parameters()}
    wrong = [f"{path} ({p.dtype})" for path, p in parameters.items() if p.dtype != torch.float32]
    if wrong:
        raise ConfigError(
            f"the parameters of {name} must be float32, these are not: {', '.join(wrong)}",
            where="network.name",
            fix="build them in float32; network.precision: bfloat16 computes in half precision",
        )
    strange = [path for path, p in parameters.items() if not bool(torch.isfinite(p).all())]
    if strange:
        raise ConfigError(
            f"parameters of {name} are not finite before training: {', '.join(strange)}",
            where="network.name",
            fix="make a mask a buffer, or use a large finite number such as -1e9",
        )


ROWS_TRIED = 2
"""More than one, to detect a network without a row axis."""


def _check_features(name: str, features: object) -> None:
    """Raises ConfigError unless a trunk gives float32 [N, num_features]."""
    found = ""
    if not isinstance(features, Tensor):
        found = f"a {type(features).__name__}"
    elif features.ndim != 2 or len(features) != ROWS_TRIED or not features.shape[1]:
        found = f"shape {tuple(features.shape)} for {ROWS_TRIED} observations"
    elif features.dtype != torch.float32:
        found = str(features.dtype)
    if found:
        raise ConfigError(
            f"{name} gives {found}; expected float32 of shape [N, num_features]",
            where="network.name",
        )


def linear(
    fan_in: int, fan_out: int, gain: float | None, kind: type[nn.Linear] = nn.Linear
) -> nn.Linear:
    """A layer with orthogonal initialisation (Saxe et al., 2014); without a gain, PyTorch's own."""
    layer = kind(fan_in, fan_out)
    _initialize(layer, gain)
    return layer


def _initialize(layer: nn.Linear | nn.Conv2d, gain: float | None) -> None:
    assert layer.bias is not None
    if gain is not None:
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)


def activation_of(spec: NetworkSpec) -> nn.Module:
    """What follows each hidden layer of an `mlp`."""
    return _ACTIVATIONS[spec.activation]()


class WideLinear(nn.Linear):
    """A layer of a million weights or more, for few rows at a time.

    It then costs no more than reading the weights. Multiplied from the left, they are read in
    place; multiplied from the right, as by `nn.Linear`, PyTorch's libraries first reorder them:
    1.2 to 1.5 times the time for eight rows, in float32 and bfloat16.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or len(x) < MIN_ROWS:
            return super().forward(x)
        return torch.addmm(self.bias[:, None], self.weight, x.t()).t()


class Flat(nn.Module):
    """[N, ...] -> [N, D]; also the single number of a shape without axes, [N]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.ndim > 1 else x.unsqueeze(1)


def mlp_trunk(observation_shape: tuple[int, ...], spec: NetworkSpec) -> nn.Sequential:
    """A multi-layer perceptron on the flattened observation."""
    layers: list[nn.Module] = [Flat()]
    sizes = [math.prod(observation_shape), *spec.hidden_sizes]
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [linear(fan_in, fan_out, spec.gain_of("hidden")), activation_of(spec)]
    return nn.Sequential(*layers)


def nature_cnn(observation_shape: tuple[int, ...], spec: NetworkSpec) -> nn.Sequential:
    """The network of Mnih et al. (2015), up to its last hidden layer of 512 units."""
    image, (channels, height, width) = _image(observation_shape)
    gain = spec.gain_of("hidden")
    convolutions = nn.Sequential(
        _conv(channels, 32, 8, gain, stride=PATCH, kind=PatchConv2d),
        nn.ReLU(),
        _conv(32, 64, 4, gain, stride=2),
        nn.ReLU(),
        _conv(64, 64, 3, gain, stride=1),
        nn.ReLU(),
        nn.Flatten(),
    )
    image = nn.Sequential(image, ChannelsLastInMemory())
    return _with_hidden(image, convolutions, (channels, height, width), 512, gain)


def minatar_cnn(observation_shape: tuple[int, ...], spec: NetworkSpec) -> nn.Sequential:
    """The small network of MinAtar (Young & Tian, 2019): 16 filters of 3x3, 128 units."""
    image, shape = _image(observation_shape)
    gain = spec.gain_of("hidden")
    convolutions = nn.Sequential(_conv(shape[0], 16, 3, gain, stride=1), nn.ReLU(), nn.Flatten())
    return _with_hidden(image, convolutions, shape, 128, gain)


def impala_cnn(observation_shape: tuple[int, ...], spec: NetworkSpec) -> nn.Sequential:
    """The deep residual network of IMPALA (Espeholt et al., 2018, figure 3) without its LSTM."""
    image, shape = _image(observation_shape)
    layers: list[nn.Module] = []
    channels, gain = shape[0], spec.gain_of("hidden")
    for depth in (16, 32, 32):
        layers += [
            _conv(channels, depth, 3, gain, stride=1, padding=1),
            nn.MaxPool2d(3, stride=2, padding=1),
            Residual(depth, gain),
            Residual(depth, gain),
        ]
        channels = depth
    convolutions = nn.Sequential(*layers, nn.ReLU(), nn.Flatten())
    image = nn.Sequential(image, ChannelsLastInMemory())
    return _with_hidden(image, convolutions, shape, 256, gain)


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, channels: int, gain: float | None) -> None:
        super().__init__()
        self.first = _conv(channels, channels, 3, gain, stride=1, padding=1)
        self.second = _conv(channels, channels, 3, gain, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.second(torch.relu(self.first(torch.relu(x))))
        return x + inner


class _Bfloat16(nn.Module):
    """Runs the wrapped module in bfloat16; input and output are float32."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            features: Tensor = self.inner(x)
        return features.to(torch.float32)


def in_precision(layers: nn.Module, spec: NetworkSpec) -> nn.Module:
    """Layers that compute in the precision of the spec; input and output are float32."""
    return _Bfloat16(layers) if spec.precision == "bfloat16" else layers


def names_in_bfloat16(network: nn.Module) -> frozenset[str]:
    """The parameters of `network` that it computes with in bfloat16."""
    return frozenset(
        f"{path}.{name}"
        for path, module in network.named_modules()
        if isinstance(module, _Bfloat16)
        for name, _ in module.named_parameters()
    )


def _is_channels_first(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] <= shape[2]


def _image(observation_shape: tuple[int, ...]) -> tuple[nn.Module, tuple[int, int, int]]:
    """A module that moves the channels to the front, and the resulting shape [C, H, W].

    Raises:
        ConfigError: Not three axes.
    """
    if len(observation_shape) != 3:
        raise ConfigError(
            f"a convolutional network needs images, the environment has {observation_shape}",
            where="network.name",
            fix="network.name: mlp",
        )
    first, second, third = observation_shape
    if _is_channels_first(observation_shape):
        return nn.Identity(), (first, second, third)
    return ChannelsFirst(), (third, first, second)


def _conv(
    inputs: int,
    outputs: int,
    kernel: int,
    gain: float | None,
    *,
    stride: int,
    padding: int = 0,
    kind: type[nn.Conv2d] = nn.Conv2d,
) -> nn.Conv2d:
    layer = kind(inputs, outputs, kernel, stride, padding)
    _initialize(layer, gain)
    return layer


def _with_hidden(
    image: nn.Module,
    convolutions: nn.Sequential,
    shape: tuple[int, int, int],
    num_units: int,
    gain: float | None,
) -> nn.Sequential:
    try:
        with torch.no_grad():
            size = int(convolutions(torch.zeros(1, *shape)).shape[-1])
    except RuntimeError as error:
        raise ConfigError(
            f"images of {shape[1]} x {shape[2]} are too small for this network",
            where="network.name",
            fix="network.name: minatar_cnn",
        ) from error
    kind = WideLinear if size * num_units >= WIDE else nn.Linear
    hidden = linear(size, num_units, gain, kind)
    return nn.Sequential(image, convolutions, hidden, nn.ReLU())


TRUNKS: dict[str, TrunkEntry] = {
    "mlp": TrunkEntry(mlp_trunk, is_shared=False),
    "nature_cnn": TrunkEntry(nature_cnn, is_shared=True, takes_bytes=True),
    "impala_cnn": TrunkEntry(impala_cnn, is_shared=True),
    "minatar_cnn": TrunkEntry(minatar_cnn, is_shared=True),
}
