"""Random spaces for hypothesis: every kind that is supported, nested."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

WHOLE = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
REAL = ["float16", "float32", "float64"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=2, max_side=3)


@st.composite
def any_discrete(draw: st.DrawFn) -> Discrete:
    dtype = draw(st.sampled_from([np.int64, np.int32, np.int8]))
    return Discrete(draw(st.integers(1, 5)), start=draw(st.integers(-9, 9)), dtype=dtype)


@st.composite
def any_multi_discrete(draw: st.DrawFn) -> MultiDiscrete:
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=2, max_side=3))
    dtype = draw(st.sampled_from([np.int64, np.int32, np.uint8]))
    nvec = draw(hnp.arrays(dtype, shape, elements=st.integers(1, 5)))
    start = draw(hnp.arrays(dtype, shape, elements=st.integers(0, 9)))
    return MultiDiscrete(nvec, dtype=dtype, start=start)


@st.composite
def any_multi_binary(draw: st.DrawFn) -> MultiBinary:
    return MultiBinary(draw(st.one_of(st.integers(1, 4), SHAPES)))


@st.composite
def any_box(draw: st.DrawFn) -> Box:
    dtype, shape = np.dtype(draw(st.sampled_from([*WHOLE, *REAL]))), draw(SHAPES)
    is_real = dtype.kind == "f"
    values = st.floats(-100, 100, width=16) if is_real else st.integers(-100, 100)
    if dtype.kind == "u":
        values = st.integers(0, 100)
    one, other = (draw(hnp.arrays(dtype, shape, elements=values)) for _ in range(2))
    low, high = np.minimum(one, other), np.maximum(one, other)
    if is_real:  # some entries are half or not bounded
        low = np.where(draw(hnp.arrays(bool, shape)), -np.inf, low)
        high = np.where(draw(hnp.arrays(bool, shape)), np.inf, high)
    return Box(low.astype(dtype), high.astype(dtype), shape, dtype)


def any_leaf() -> st.SearchStrategy[gymnasium.Space]:
    return st.one_of(any_discrete(), any_multi_discrete(), any_multi_binary(), any_box())


def any_space() -> st.SearchStrategy[gymnasium.Space]:
    """Leaves, and Dicts and Tuples of them to any depth."""
    return st.recursive(
        any_leaf(),
        lambda parts: st.one_of(
            st.dictionaries(
                st.text("ab.%", min_size=1, max_size=3), parts, min_size=1, max_size=3
            ).map(Dict),
            st.lists(parts, min_size=1, max_size=3).map(Tuple),
        ),
        max_leaves=6,
    )
