"""The layout that both ends of a wire compute for themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.rollout import ALIGNMENT_BYTES, Field, Layout

FIELDS = (
    Field("observation", "float32", (3,), extra_rows=1),
    Field("action", "int64"),
    Field("valid", "bool"),
)

fields = st.builds(
    Field,
    name=st.sampled_from("abcd"),
    dtype=st.sampled_from(("float32", "int64", "bool", "uint8", "float64")),
    shape=st.lists(st.integers(1, 4), max_size=2).map(tuple),
    extra_rows=st.integers(0, 1),
    num_rows=st.none() | st.integers(0, 7),
)
layouts = st.builds(
    Layout,
    fields=st.lists(fields, max_size=4, unique_by=lambda f: f.name).map(tuple),
    num_steps=st.integers(1, 5),
    num_envs=st.integers(1, 5),
)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(layouts)
def test_fields_are_aligned_disjoint_and_fill_the_buffer(layout: Layout):
    assert all(offset % ALIGNMENT_BYTES == 0 for offset in layout.offsets)
    views = layout.views(layout.allocate())
    assert set(views) == {item.name for item in layout.fields}
    ends = [0]
    for item, offset in zip(layout.fields, layout.offsets, strict=False):
        view = views[item.name]
        num_rows = layout.num_steps + item.extra_rows if item.num_rows is None else item.num_rows
        assert view.shape == (num_rows, layout.num_envs, *item.shape)
        assert view.dtype == item.dtype
        assert offset >= ends[-1]
        assert offset - ends[-1] < ALIGNMENT_BYTES
        ends.append(offset + view.nbytes)
    assert ends[-1] <= layout.num_bytes < ends[-1] + ALIGNMENT_BYTES


def test_a_field_can_have_its_own_number_of_rows():
    """The state before the first step is one row, whatever T is."""
    fields = (Field("state", "float32", (3,), num_rows=1), Field("action", "int64"))
    one, several = Layout(fields, 1, 4), Layout(fields, 20, 4)
    assert one.views(one.allocate())["state"].shape == (1, 4, 3)
    assert several.views(several.allocate())["state"].shape == (1, 4, 3)
    assert one.offsets[1] == several.offsets[1] == 64
    of_every_step = Layout((Field("state", "float32", (3,)), fields[1]), 1, 4)
    assert of_every_step.digest != one.digest, "though both have the same size"


def test_views_write_through_to_the_buffer():
    layout = Layout(FIELDS, num_steps=2, num_envs=2)
    buffer = layout.allocate()
    layout.views(buffer)["action"][1, 0] = 77
    layout.views(buffer)["valid"][:] = True
    assert layout.views(buffer)["action"].tolist() == [[0, 0], [77, 0]]
    assert layout.views(buffer.copy())["valid"].all()
    assert not layout.views(buffer)["observation"].any()


def test_a_buffer_that_is_too_small_is_refused():
    layout = Layout(FIELDS, num_steps=2, num_envs=2)
    with pytest.raises(ValueError, match="for a layout of"):
        layout.views(np.zeros(layout.num_bytes - 1, np.uint8))


CHANGED = [
    Layout(FIELDS, num_steps=3, num_envs=2),
    Layout(FIELDS, num_steps=2, num_envs=3),
    Layout(FIELDS[:2], num_steps=2, num_envs=2),
    Layout((FIELDS[1], FIELDS[0], FIELDS[2]), num_steps=2, num_envs=2),
    Layout((Field("observation", "float64", (3,), 1), *FIELDS[1:]), num_steps=2, num_envs=2),
    Layout((Field("observation", "float32", (4,), 1), *FIELDS[1:]), num_steps=2, num_envs=2),
    Layout((Field("observation", "float32", (3,), 0), *FIELDS[1:]), num_steps=2, num_envs=2),
    Layout((Field("state", "float32", (3,), 1), *FIELDS[1:]), num_steps=2, num_envs=2),
]


def test_whatever_differs_between_two_layouts_changes_the_digest():
    original = Layout(FIELDS, num_steps=2, num_envs=2)
    digests = {layout.digest for layout in (original, *CHANGED)}
    assert len(digests) == 1 + len(CHANGED)
    assert Layout(FIELDS, num_steps=2, num_envs=2).digest == original.digest
    assert all(0 <= digest < 2**64 for digest in digests)
