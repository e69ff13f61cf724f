"""Sequences from replay: each row against the history that the rollouts were cut from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.replay.sequences import SequenceStore, mixed
from engine.replay.transitions import initial_errors, n_step_transitions
from engine.rollout import Field, Layout, Rollout, RolloutInfo

STEPS, ENVS, GAMMA, N_STEP, ETA = 4, 2, 0.5, 2, 0.9
STEP_FIELDS = (
    Field("reward", "float32"),
    Field("terminated", "bool"),
    Field("truncated", "bool"),
    Field("valid", "bool"),
)
FIELDS = (
    Field("observation.place", "float32", (2,), extra_rows=1),
    Field("observation.kind", "int64", extra_rows=1),
    Field("action_mask", "bool", (3,), extra_rows=1),
    Field("action", "int64"),
    Field("state", "float32", (3,)),
    *STEP_FIELDS,
)
LAYOUT = Layout(FIELDS, STEPS, ENVS)


def make_store(num_slots: int, burn_in_steps: int, layout: Layout = LAYOUT) -> SequenceStore:
    sizes = (num_slots * layout.num_steps * layout.num_envs, N_STEP, GAMMA)
    values = tuple(item.name for item in layout.fields if item.name.startswith("q_"))
    return SequenceStore(
        layout,
        *sizes,
        (values[0], values[1]) if values else None,
        with_last=frozenset(item.name for item in layout.fields if item.extra_rows),
        burn_in_steps=burn_in_steps,
        priority_mix=ETA,
    )


def make_rollout(actor: int, sequence: int, epoch: int = 0, layout: Layout = LAYOUT) -> Rollout:
    """Every value tells actor, epoch, step of its environment's history, and environment."""
    buffer = layout.allocate()
    views = layout.views(buffer)
    random = np.random.default_rng((actor, epoch, sequence))
    for name, view in views.items():
        if name in ("terminated", "truncated"):
            view[...] = random.random(view.shape) < 0.15
        elif name == "valid":
            view[...] = random.random(view.shape) < 0.85
        elif name == "reward" or name.startswith("q_"):
            view[...] = random.normal(size=view.shape)
        else:
            view[...] = history(name, actor, epoch, sequence * layout.num_steps, view.shape)
    info = RolloutInfo(
        actor=actor,
        epoch=epoch,
        sequence=sequence,
        ticket=0,
        version_min=100 * actor + sequence,
        version_max=0,
        num_env_steps=0,
        total_env_steps=0,
        start_s=0.0,
        end_s=10.0 * actor + sequence,
    )
    return Rollout(info, buffer)


def history(name: str, actor: int, epoch: int, first: int, shape: tuple[int, ...]) -> np.ndarray:
    """Values of rows `first` and later: those of s_T are also those of the next rollout's s_0."""
    t = first + np.arange(shape[0]).reshape(-1, *(1,) * (len(shape) - 1))
    env = np.arange(shape[1]).reshape(1, -1, *(1,) * (len(shape) - 2))
    number = 1000 * actor + 500 * epoch + 10 * t + env + len(name) * 10_000
    if len(shape) == 3:
        number = number + np.arange(shape[2]) / 8
    return number % 3 < 1 if name == "action_mask" else number


def empty_samples(count: int, burn_in_steps: int, layout: Layout = LAYOUT) -> dict[str, np.ndarray]:
    rows, out = burn_in_steps + layout.num_steps, {}
    for item in layout.fields:
        if item.name in ("state", "reward", "terminated", "truncated"):
            continue
        out[item.name] = np.zeros((count, rows + item.extra_rows, *item.shape), item.dtype)
    return out | {
        "state": np.zeros((count, 3), np.float32),
        "has_burn_in": np.zeros(count, bool),
        "reward": np.zeros((count, layout.num_steps), np.float32),
        "discount": np.zeros((count, layout.num_steps), np.float32),
        "span": np.zeros((count, layout.num_steps), np.int64),
        "version": np.zeros(count, np.int64),
    }


def check_drawn(store: SequenceStore, kept: list[tuple[int, int, int]], burn_in_steps: int) -> int:
    """Compares all sequences of a store with those of the rollouts that it should hold, oldest
    first; returns how many have a burn-in."""
    positions = np.concatenate(
        [np.arange(ENVS) + number % store.num_slots * ENVS for number in range(len(kept))]
    )
    out = empty_samples(len(positions), burn_in_steps)
    store.gather(positions, out)
    slots = {origin: number for number, origin in enumerate(kept) if origin is not None}
    for i, position in enumerate(positions):
        actor, epoch, sequence = kept[position // ENVS]
        env = position % ENVS
        has_burn_in = burn_in_steps > 0 and (actor, epoch, sequence - 1) in slots
        assert out["has_burn_in"][i] == has_burn_in
        before = burn_in_steps if has_burn_in else 0
        own = LAYOUT.views(make_rollout(actor, sequence, epoch).buffer)
        first = sequence * STEPS - before
        for name in ("observation.place", "observation.kind", "action_mask", "action"):
            rows = before + STEPS + (name != "action")
            shape = (rows, ENVS, *out[name].shape[2:])
            wanted = history(name, actor, epoch, first, shape)[:, env]
            found = out[name][i, burn_in_steps - before :]
            np.testing.assert_array_equal(found, np.asarray(wanted, found.dtype), err_msg=name)
        wanted = history("state", actor, epoch, first, (1, ENVS, 3))[0, env]
        np.testing.assert_array_equal(out["state"][i], wanted.astype(np.float32))
        np.testing.assert_array_equal(out["valid"][i, burn_in_steps:], own["valid"][:, env])
        if has_burn_in:
            other = LAYOUT.views(make_rollout(actor, sequence - 1, epoch).buffer)["valid"]
            np.testing.assert_array_equal(
                out["valid"][i, :burn_in_steps], other[STEPS - burn_in_steps :, env]
            )
        spans = n_step_transitions(own, N_STEP, GAMMA)
        for name, values in zip(("reward", "discount", "span"), spans, strict=True):
            np.testing.assert_array_equal(out[name][i], values[:, env], err_msg=name)
        assert out["version"][i] == 100 * actor + sequence
    return int(out["has_burn_in"].sum())


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    actors=st.lists(st.integers(0, 2), min_size=1, max_size=14),
    num_slots=st.integers(1, 6),
    burn_in_steps=st.integers(0, STEPS),
)
def test_what_is_drawn_is_what_its_environment_went_through(
    actors: list[int], num_slots: int, burn_in_steps: int
):
    store = make_store(num_slots, burn_in_steps)
    kept: list[tuple[int, int, int]] = []
    sent: dict[int, int] = {}
    for number, actor in enumerate(actors):
        sequence = sent[actor] = sent.get(actor, -1) + 1
        first, can_be_drawn, errors = store.take_in(make_rollout(actor, sequence))
        assert first == number % num_slots * ENVS
        assert errors is None
        assert can_be_drawn.shape == (ENVS,)
        if number < num_slots:
            kept.append((actor, 0, sequence))
        else:
            kept[number % num_slots] = (actor, 0, sequence)
        check_drawn(store, kept, burn_in_steps)


def test_a_rollout_that_came_late_or_was_lost_or_is_of_another_epoch_is_no_wrong_burn_in():
    store = make_store(8, burn_in_steps=2)
    arrivals = [(0, 0, 1), (0, 0, 0), (0, 0, 3), (0, 1, 4), (1, 0, 1), (0, 1, 5)]
    for actor, epoch, sequence in arrivals:
        store.take_in(make_rollout(actor, sequence, epoch))
    # (0, 0, 0) comes before (0, 0, 1), though it arrived later; (0, 1, 4) before (0, 1, 5).
    assert check_drawn(store, arrivals, 2) == 2 * ENVS


def test_an_overwritten_rollout_is_a_burn_in_no_longer():
    store = make_store(3, burn_in_steps=STEPS)
    for sequence in range(3):
        store.take_in(make_rollout(0, sequence))
    assert check_drawn(store, [(0, 0, 0), (0, 0, 1), (0, 0, 2)], STEPS) == 2 * ENVS
    store.take_in(make_rollout(1, 7))
    assert check_drawn(store, [(1, 0, 7), (0, 0, 1), (0, 0, 2)], STEPS) == ENVS
    store.take_in(make_rollout(0, 3))
    assert check_drawn(store, [(1, 0, 7), (0, 0, 3), (0, 0, 2)], STEPS) == ENVS


def test_keys_are_one_for_each_rollout_and_environment():
    store = make_store(3, burn_in_steps=1)
    for sequence in range(4):
        store.take_in(make_rollout(0, sequence))
    assert store.num_positions == store.num_filled == 3 * ENVS
    positions = np.arange(3 * ENVS)
    keys = store.keys(positions)
    assert keys.tolist() == [6, 7, 2, 3, 4, 5]
    found, is_kept = store.positions(np.array([*keys, 0, 1]))
    assert found[:6].tolist() == positions.tolist()
    assert is_kept.tolist() == [*[True] * 6, False, False]
    assert store.times_s(positions).tolist() == [3, 3, 1, 1, 2, 2]


def test_a_sequence_that_only_reset_is_not_drawn():
    store = make_store(3, burn_in_steps=0)
    rollout = make_rollout(0, 0)
    valid = LAYOUT.views(rollout.buffer)["valid"]
    valid[...] = False
    valid[2, 1] = True
    assert store.take_in(rollout)[1].tolist() == [False, True]


def test_the_priority_of_a_sequence_mixes_maximum_and_mean_of_its_steps():
    errors = np.array([[1.0, 5.0], [3.0, 0.5], [9.0, 2.0]])
    is_step = np.array([[True, True], [True, False], [False, True]])
    found = mixed(errors, is_step, 0.9)
    np.testing.assert_allclose(found, [0.9 * 3 + 0.1 * 2, 0.9 * 5 + 0.1 * 3.5])
    assert mixed(errors, np.zeros_like(is_step), 0.9).tolist() == [0.0, 0.0]


def test_initial_priorities_come_from_the_values_of_actors():
    layout = Layout((*FIELDS, Field("q_taken", "float32"), Field("q_best", "float32")), STEPS, ENVS)
    store = make_store(3, burn_in_steps=0, layout=layout)
    rollout = make_rollout(0, 0, layout=layout)
    _, can_be_drawn, errors = store.take_in(rollout)
    views = layout.views(rollout.buffer)
    spans = n_step_transitions(views, N_STEP, GAMMA)
    of_steps = initial_errors(spans, views["q_taken"], views["q_best"])
    valid = np.asarray(views["valid"], bool)
    assert can_be_drawn.all()
    assert errors is not None
    np.testing.assert_allclose(errors, mixed(of_steps, valid, ETA))
    for env in range(ENVS):
        own = of_steps[valid[:, env], env]
        assert errors[env] == pytest.approx(0.9 * own.max() + 0.1 * own.mean())


def test_a_burn_in_is_at_most_one_rollout():
    with pytest.raises(ValueError, match="more than a rollout"):
        make_store(2, burn_in_steps=STEPS + 1)
