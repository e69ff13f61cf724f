"""A search as data: what is varied within which bounds, how the next setting is chosen."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from engine.spec import NonNegativeInt, PositiveFloat, PositiveInt, Scalar, Spec, UnitInterval

Objective: TypeAlias = Literal["final return", "area under curve", "time to threshold"]
Direction: TypeAlias = Literal["maximize", "minimize"]
MAX_TRIALS = 10_000
Choices: TypeAlias = Annotated[tuple[Scalar, ...], Meta(min_length=1)]


class FloatRange(Spec, frozen=True, kw_only=True, tag_field="type", tag="float"):
    """A number between two bounds, both included."""

    low: float
    """The lowest value."""
    high: float
    """The highest value."""
    log: bool = False
    """Even on a logarithmic scale; `low` is above 0."""
    step: PositiveFloat | None = None
    """Only `low` and multiples of this above it. Not with `log`."""
    points: Annotated[int, Meta(ge=2)] | None = None
    """Values on a grid, from `low` to `high`. Only for the sampler `grid`, without `step`."""


class IntRange(Spec, frozen=True, kw_only=True, tag_field="type", tag="int"):
    """A whole number between two bounds, both included."""

    low: int
    """The lowest value."""
    high: int
    """The highest value."""
    log: bool = False
    """Even on a logarithmic scale; `low` is above 0. Not with `step`."""
    step: PositiveInt = 1
    """Only `low` and multiples of this above it."""
    points: Annotated[int, Meta(ge=2)] | None = None
    """Values on a grid, from `low` to `high`. Only for the sampler `grid`."""


class CategoricalRange(Spec, frozen=True, kw_only=True, tag_field="type", tag="categorical"):
    """One of some values."""

    choices: Choices
    """The values: text, numbers, booleans or `null`."""


Range: TypeAlias = FloatRange | IntRange | CategoricalRange


class Search(Spec, frozen=True, kw_only=True):
    """How a study searches. Each task is searched on its own, with the same search.

    A trial is one setting, run with every seed of the study.
    """

    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """`tpe`: a tree-structured Parzen estimator, after `startup_trials` at random."""
    trials: Annotated[int, Meta(ge=1, le=MAX_TRIALS)] | None = None
    """Number of settings to try. Only for `grid` it can be left out: all points."""
    pruner: Literal["median", "none"] = "median"
    """`median`: a run whose mean return is below the median of all finished trials at the same
    share of the budget is ended."""
    objective: Objective = "final return"
    """`final return`: mean of the last training episodes. `area under curve`: mean of the learning
    curve over the budget. `time to threshold`: seconds. Of a trial, the median over its seeds."""
    direction: Direction | None = None
    """Default: `maximize`, and `minimize` for the time to the threshold."""
    seed: NonNegativeInt = 0
    """Of the sampler."""
    startup_trials: PositiveInt = 5
    """Trials at random before `tpe` begins, and finished trials before anything is pruned."""
    warmup: UnitInterval = 0.3
    """Share of the budget during which no run is pruned."""
    max_failed: NonNegativeInt = 5
    """Trials that may fail before the search ends with an error; counted anew when resumed."""
    space: dict[str, Range]
    """By dotted key of the experiment, as `-s` takes it."""

    @property
    def to_maximize(self) -> bool:
        """Whether higher values of the objective are better."""
        if self.direction is not None:
            return self.direction == "maximize"
        return self.objective != "time to threshold"

    @property
    def is_pruned(self) -> bool:
        return self.pruner == "median"
