"""The replay store: n-step transitions against the definition, and nothing read that is gone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.replay.store import RolloutStore
from engine.replay.transitions import initial_errors, n_step_transitions
from engine.rollout import Field, Layout

FIELDS = (
    Field("observation", "float32", (2,), extra_rows=1),
    Field("action", "int64"),
    Field("reward", "float32"),
    Field("terminated", "bool"),
    Field("truncated", "bool"),
    Field("valid", "bool"),
)


def transition_by_hand(
    outcomes: dict[str, np.ndarray], t: int, env: int, n_step: int, discount: float
) -> tuple[float, float, int]:
    """One transition, one step after the other."""
    reward, factor, span, future = 0.0, 1.0, 0, 1.0
    if not outcomes["valid"][t, env]:
        return 0.0, 1.0, 0
    for step in range(t, min(t + n_step, len(outcomes["reward"]))):
        reward += factor * outcomes["reward"][step, env]
        factor *= discount
        span += 1
        if outcomes["terminated"][step, env]:
            future = 0.0
            break
        if outcomes["truncated"][step, env]:
            break
    return reward, future * factor, span


def random_outcomes(seed: int, num_steps: int, num_envs: int) -> dict[str, np.ndarray]:
    """Episodes that end at random; the step after an end only resets."""
    random = np.random.default_rng(seed)
    shape = (num_steps, num_envs)
    outcomes = {"reward": random.normal(size=shape).astype(np.float32)}
    ends = random.random((2, *shape)) < 0.15
    valid = np.ones(shape, bool)
    for t in range(1, num_steps):
        valid[t] = ~((ends[0, t - 1] | ends[1, t - 1]) & valid[t - 1])
    outcomes |= {"terminated": ends[0] & valid, "truncated": ends[1] & valid, "valid": valid}
    return outcomes


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    num_steps=st.integers(1, 12),
    num_envs=st.integers(1, 4),
    n_step=st.integers(1, 6),
    discount=st.floats(0.1, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_transitions_are_what_the_definition_says(
    num_steps: int, num_envs: int, n_step: int, discount: float, seed: int
):
    outcomes = random_outcomes(seed, num_steps, num_envs)
    reward, future, span = n_step_transitions(outcomes, n_step, discount)
    for t in range(num_steps):
        for env in range(num_envs):
            wanted = transition_by_hand(outcomes, t, env, n_step, discount)
            assert reward[t, env] == pytest.approx(wanted[0], abs=1e-6)
            assert future[t, env] == pytest.approx(wanted[1], abs=1e-6)
            assert span[t, env] == wanted[2]


def make_store(num_slots: int = 3) -> RolloutStore:
    return RolloutStore(Layout(FIELDS, 4, 2), num_slots * 8, n_step=2, discount=0.5)


def make_buffer(number: int) -> np.ndarray:
    """A rollout whose observations are (number, step) and whose rewards are its number."""
    layout = Layout(FIELDS, 4, 2)
    buffer = layout.allocate()
    views = layout.views(buffer)
    views["observation"][..., 0] = number
    views["observation"][..., 1] = np.arange(5)[:, None]
    views["action"][...] = number
    views["reward"][...] = number
    views["valid"][...] = True
    views["valid"][1, 0] = False
    return buffer


def test_what_is_drawn_is_what_was_inserted():
    store = make_store()
    for number in range(5):  # two more than there is room for
        first, is_transition, errors = store.insert(make_buffer(number), number, 10.0 * number)
        assert first == number % 3 * 8
        assert errors is None, "no actor sends values"
        assert is_transition.tolist() == [True, True, False, *[True] * 5]
    positions = np.arange(store.num_filled)
    out = {
        "observation": np.zeros((24, 2), np.float32),
        "next_observation": np.zeros((24, 2), np.float32),
        "action": np.zeros(24, np.int64),
        "reward": np.zeros(24, np.float32),
        "discount": np.zeros(24, np.float32),
        "version": np.zeros(24, np.int64),
    }
    store.gather(positions, out)
    numbers = np.repeat([3, 4, 2], 8)
    steps = np.tile(np.repeat(np.arange(4), 2), 3)
    np.testing.assert_array_equal(out["observation"], np.stack([numbers, steps], 1))
    np.testing.assert_array_equal(out["version"], numbers)
    np.testing.assert_array_equal(store.times_s(positions), 10.0 * numbers)
    has_two = (steps < 3) & (np.arange(24) % 8 != 2)
    np.testing.assert_array_equal(out["reward"][has_two], 1.5 * numbers[has_two])
    np.testing.assert_array_equal(out["discount"][has_two], 0.25)
    np.testing.assert_array_equal(out["next_observation"][has_two, 1], steps[has_two] + 2)
    np.testing.assert_array_equal(out["next_observation"][steps == 3, 1], 4)


def test_keys_lead_back_to_their_positions_until_these_are_overwritten():
    store = make_store()
    keys = []
    for number in range(7):
        first, _, _ = store.insert(make_buffer(number), 0, 0.0)
        keys.append(store.keys(np.arange(first, first + 8)))
    assert len(np.unique(keys)) == 7 * 8, "no key is used twice"
    for number, rollout_keys in enumerate(keys):
        positions, is_kept = store.positions(rollout_keys)
        assert is_kept.all() if number >= 4 else not is_kept.any()
        assert positions.tolist() == list(range(number % 3 * 8, number % 3 * 8 + 8))


def test_keys_that_were_never_given_are_not_believed():
    store = make_store()
    store.insert(make_buffer(0), 0, 0.0)
    _, is_kept = store.positions(np.array([-1, 0, 7, 8, 2**40]))
    assert is_kept.tolist() == [False, True, True, False, False]


def test_initial_errors_are_the_td_errors_of_the_actor():
    outcomes = random_outcomes(seed=5, num_steps=9, num_envs=3)
    random = np.random.default_rng(6)
    taken, best = random.normal(size=(2, 9, 3))
    transitions = n_step_transitions(outcomes, 2, 0.9)
    found = initial_errors(transitions, taken, best)
    unknown, known = [], [0.0]
    for t in range(9):
        for env in range(3):
            reward, future, span = transition_by_hand(outcomes, t, env, 2, 0.9)
            if not span:
                assert found[t, env] == 0
            elif future and t + span == 9:
                unknown.append(found[t, env])
            else:
                following = best[t + span, env] if future else 0.0
                known.append(abs(reward + future * following - taken[t, env]))
                assert found[t, env] == pytest.approx(known[-1], abs=1e-6)
    assert unknown
    assert unknown == pytest.approx([max(known)] * len(unknown))


def test_a_store_reads_the_actors_values_from_the_rollout():
    values = (Field("q_taken", "float32"), Field("q_best", "float32"))
    layout = Layout((*FIELDS, *values), 4, 2)
    store = RolloutStore(layout, 8, n_step=1, discount=0.5, value_fields=("q_taken", "q_best"))
    buffer = layout.allocate()
    views = layout.views(buffer)
    views["valid"][...], views["reward"][...] = True, 1.0
    views["q_taken"][...], views["q_best"][...] = 3.0, 8.0
    views["terminated"][3, 1] = True
    _, _, errors = store.insert(buffer, 0, 0.0)
    assert errors is not None
    assert errors.tolist() == [2.0] * 8, "1 + 0.5 * 8 - 3, or 1 - 3 at the end"
