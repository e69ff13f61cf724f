"""Running statistics: parameters of a network that no gradient reaches, and how they are merged.

They are exact over several learners. Learners that share batches sum over all shares in every
update (`RunningStatistics.learn`). If a reducer merges models, each learner updates from its own
samples; what is merged is not mean and variance but the sums behind them,

    n,   n mean,   n (variance + mean^2)

which add up: the reducer adds what each learner has seen since its last answer, so each sample
counts once, from the merge that delivers it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from engine.algorithms.replicas import SINGLE_REPLICA, ReplicaGroup

Sums = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float32]


class RunningStatistics(nn.Module):
    """Mean and variance of everything seen so far, as parameters that no gradient reaches.

    Args:
        shape: Of one value.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(shape), requires_grad=False)
        self.variance = nn.Parameter(torch.ones(shape), requires_grad=False)
        self.count = nn.Parameter(torch.zeros(()), requires_grad=False)

    @property
    def inverse_deviation(self) -> Tensor:
        """1 / standard deviation, float32 of the shape of one value; 1 before the first values."""
        return torch.rsqrt(self.variance + 1e-8)

    @torch.no_grad()
    def learn(self, values: Tensor, replicas: ReplicaGroup = SINGLE_REPLICA) -> None:
        """Merges values, float32 [N, ...] (Chan et al., 1979, equation 2.1).

        A value that overflows when squared in single precision leaves its entry unchanged.

        Args:
            values: Of this learner's share.
            replicas: The learners with the other shares; all update from all shares.
        """
        num_new = values.shape[0]
        if replicas.count > 1:
            num_new, mean, variance = self._moments_of_all(values, replicas)
        elif num_new:
            variance, mean = torch.var_mean(values, dim=0, correction=0)
        if not num_new:
            return
        total = self.count + num_new
        delta = mean - self.mean
        between = delta.square() * (self.count * num_new / total)
        variance = (self.variance * self.count + variance * num_new + between) / total
        mean = self.mean + delta * (num_new / total)
        is_sound = torch.isfinite(variance) & torch.isfinite(mean)
        self.variance.copy_(torch.where(is_sound, variance, self.variance))
        self.mean.copy_(torch.where(is_sound, mean, self.mean))
        self.count.copy_(total)

    def _moments_of_all(self, values: Tensor, replicas: ReplicaGroup) -> tuple[int, Tensor, Tensor]:
        """Number, mean and variance of the values of all learners, with one all-reduce.

        Sums are in double precision, of deviations from the mean so far, which all learners share,
        so there is no cancellation.
        """
        deviations = values.to(torch.float64) - self.mean
        count = torch.full_like(self.mean, values.shape[0], dtype=torch.float64)
        sums = torch.stack((count, deviations.sum(0), deviations.square().sum(0)))
        count, total, squares = replicas.sum(sums)
        num_new = int(count.max())
        shift = total / max(num_new, 1)
        variance = (squares / max(num_new, 1) - shift.square()).clamp(min=0.0)
        return num_new, (self.mean + shift).to(values.dtype), variance.to(values.dtype)


@dataclass(frozen=True)
class Place:
    """Positions of one `RunningStatistics` in the flat parameters.

    Attributes:
        mean, variance: Their values.
        count: Its only value.
    """

    mean: slice
    variance: slice
    count: int


def places_of(network: nn.Module) -> tuple[Place, ...]:
    """All running statistics of a network, in the order of its modules."""
    spans: dict[int, slice] = {}
    position = 0
    for parameter in network.parameters():
        spans[id(parameter)] = slice(position, position + parameter.numel())
        position += parameter.numel()
    return tuple(
        Place(spans[id(item.mean)], spans[id(item.variance)], spans[id(item.count)].start)
        for item in network.modules()
        if isinstance(item, RunningStatistics)
    )


def read_sums(vector: Vector, places: tuple[Place, ...]) -> Sums:
    """The sums behind the statistics in flat parameters [P], one after the other."""
    sums: list[Sums] = [np.zeros(0)]
    for place in places:
        mean, variance = (vector[span].astype(np.float64) for span in (place.mean, place.variance))
        count = np.float64(vector[place.count])
        sums += [np.array([count]), count * mean, count * (variance + mean**2)]
    return np.concatenate(sums)


def write_sums(sums: npt.NDArray[np.floating], vector: Vector, places: tuple[Place, ...]) -> None:
    """Writes the statistics with these sums into flat parameters [P]; without samples, mean 0 and
    variance 1."""
    position = 0
    for place in places:
        size = place.mean.stop - place.mean.start
        count, total, squares = np.split(
            sums[position : position + 1 + 2 * size], np.array([1, 1 + size])
        )
        position += 1 + 2 * size
        has_seen = count[0] >= 1
        mean = total / count if has_seen else np.zeros(size)
        variance = np.maximum(squares / count - mean**2, 0) if has_seen else np.ones(size)
        vector[place.mean], vector[place.variance] = mean, variance
        vector[place.count] = count[0] if has_seen else 0.0
