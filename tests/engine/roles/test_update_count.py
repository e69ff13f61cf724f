"""Lag in optimiser steps: how many lie between two versions of a learner."""

from __future__ import annotations

import numpy as np

from engine.messages import BatchArrived
from engine.roles.batches import UpdateCount, staleness_row
from engine.roles.events import Updated
from engine.rollout import Rollout, Weights
from engine.testing import make_rollout
from engine.trace.records import Staleness


def counted() -> UpdateCount:
    """Versions 3 to 6; the update of version 4 ended early."""
    count = UpdateCount(version=3)
    for before in (100, 116, 120, 136):
        count.note(before)
    return count


def test_optimiser_steps_between_versions_are_those_of_the_updates_between_them():
    count = counted()
    assert count.between((6, 5, 4, 3), 6) == [0, 16, 20, 36]
    assert count.between([1], 6) == [36], "what a resumed store has is older than the run"


def test_versions_with_the_same_lag_in_optimiser_steps_all_count():
    """What a resumed store has is older than the run, whichever version collected it."""
    rollouts = [make_rollout(version=version, env_steps=8) for version in (0, 1, 2, 6)]
    row = row_of(*rollouts)
    assert row.optimizer_lag_mean == 3 * 36 / 4
    assert row.optimizer_lag_max == 36


def row_of(*rollouts: Rollout) -> Staleness:
    """Of a batch of these rollouts, trained by version 6."""
    updated = Updated(
        weights=Weights(7, np.zeros(4, np.uint8)),
        **{"samples_trained": 32, "num_updates": 152, "update_s": 0.1, "metrics": {}},
        ratios_by_lag={"ess_by_lag": {0: 1.0, 2: 0.5}},
    )
    return staleness_row(0, 6, BatchArrived(6, rollouts), updated, counted(), 2.5, 3.0)


def test_a_row_has_the_lag_of_a_batch_in_optimiser_steps_and_the_ratios_of_its_update():
    row = row_of(make_rollout(version=4, env_steps=8), make_rollout(version=6, env_steps=24))
    assert row.steps_by_lag == {2: 8, 0: 24}
    assert row.optimizer_lag_mean == 20 * 8 / 32
    assert row.optimizer_lag_max == 20
    assert row.ess_by_lag == {0: 1.0, 2: 0.5}
