"""The reducer answers whoever offers a model, with whatever it has; nobody waits."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch

from engine.blueprint import make_blueprint
from engine.clock import ManualClock
from engine.executors.learner import LearnerExecutor
from engine.executors.reducer import Accumulation, CommonModel, ReducerExecutor, WholeModel
from engine.graph.cut import Cut
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.messages import COORDINATOR, GroupLost, ModelMerged, ModelOffered, Report, Stop, Stopped
from engine.roles.commands import BlendModel, ExportModel, ForgetModel, MergeModel
from engine.roles.events import ModelsMerged
from engine.roles.reducer import ReducerRole, merge_shares
from engine.rollout import Weights
from engine.spec import Experiment, ReduceSpec, StalenessSpec
from engine.testing import has, make_experiment, make_weights, only, sent
from engine.trace.records import Merge


def offer(role: ReducerRole, group: int, version: int) -> tuple[MergeModel, Merge]:
    commands = role.handle(ModelOffered(group, make_weights(version)), 1.0)
    (report,) = sent(commands, Report, COORDINATOR)
    (row,) = report.records
    assert isinstance(row, Merge)
    return only(commands, MergeModel), row


def test_the_first_model_is_answered_at_once_and_alone():
    command, row = offer(ReducerRole(0, ReduceSpec()), 1, 4)
    assert command.shares == {1: 1.0}
    assert (row.group, row.version, row.lag, row.lag_max, row.merges_total) == (1, 4, 0, 0, 1)


def test_whichever_models_have_arrived_are_averaged_and_the_lag_between_groups_is_traced():
    role = ReducerRole(0, ReduceSpec())
    offer(role, 0, 10)
    command, row = offer(role, 2, 7)
    assert command.shares == {0: 0.5, 2: 0.5}
    assert (row.lag, row.lag_max, row.versions) == (3, 3, {0: 10, 2: 7})
    _, row = offer(role, 0, 11)
    assert (row.lag, row.lag_max, row.merges_total) == (0, 4, 3)


def test_an_old_model_weighs_less_if_asked():
    assert merge_shares({0: 10, 1: 7}, 0.0) == {0: 0.5, 1: 0.5}
    shares = merge_shares({0: 10, 1: 7}, 1.0)
    assert shares[1] / shares[0] == pytest.approx(1 / 4)
    assert sum(shares.values()) == pytest.approx(1.0)


def test_the_answer_goes_to_the_learner_that_asked():
    merged = ReducerRole(0, ReduceSpec()).handle(ModelsMerged(3, make_weights(5)), 1.0)
    assert sent(merged, ModelMerged, "learner-3")[0].weights.version == 5


def test_a_lost_group_counts_no_longer_and_is_not_heard_again():
    role = ReducerRole(0, ReduceSpec())
    offer(role, 0, 3)
    offer(role, 1, 3)
    assert only(role.handle(GroupLost(group=1), 2.0), ForgetModel).group == 1
    assert role.handle(ModelOffered(1, make_weights(4)), 2.0) == []
    command, row = offer(role, 0, 4)
    assert command.shares == {0: 1.0}
    assert row.versions == {0: 4}


def test_after_a_stop_nothing_is_merged():
    role = ReducerRole(0, ReduceSpec())
    assert sent(role.handle(Stop(), 1.0), Stopped, COORDINATOR)
    assert not has(role.handle(ModelOffered(0, make_weights(1)), 1.0), MergeModel)


def vector(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


HALF = {0: 0.5, 1: 0.5}


def test_first_models_are_averaged_by_their_shares():
    common = CommonModel(gain=0.5)
    assert common.merge(0, vector(1, 2), {0: 1.0}).tolist() == [1, 2]
    assert common.merge(1, vector(5, 6), {0: 0.25, 1: 0.75}).tolist() == [4, 5]


def test_without_gain_the_common_model_moves_by_the_mean_of_what_was_learnt():
    common = CommonModel(gain=0.0)
    for group in (0, 1):
        common.merge(group, vector(0), {g: 1 / (group + 1) for g in range(group + 1)})
    assert common.merge(0, vector(4), HALF).tolist() == [2]
    assert common.merge(1, vector(2), HALF).tolist() == [3], "the mean of 4 and 2"
    # Group 0 was told 2 and has learnt 1 since; the progress of group 1 is not taken back.
    assert common.merge(0, vector(3), HALF).tolist() == [3.5]


@pytest.mark.parametrize(("gain", "speed"), [(0.0, 1.0), (0.5, 2.0), (1.0, 4.0)])
def test_groups_that_offer_in_turn_move_it_as_fast_as_the_gain_says(gain: float, speed: float):
    """Each of four groups learns +1 a round. A mean of newest models would go slower than 1."""
    common, models = CommonModel(gain), [vector(0) for _ in range(4)]
    shares = dict.fromkeys(range(4), 0.25)
    for group in range(4):
        models[group] = common.merge(group, models[group], shares)
    for _ in range(50):
        for group in range(4):
            models[group] = common.merge(group, models[group] + 1, shares)
    assert models[3][0] == pytest.approx(50 * speed)


def test_a_group_that_is_lost_leaves_what_it_has_taught():
    common = CommonModel(gain=0.0)
    common.merge(0, vector(2), {0: 1.0})
    common.merge(1, vector(4), HALF)
    common.forget(0)
    assert common.merge(1, vector(5), {1: 1.0}).tolist() == [5]


def test_a_parameter_server_adds_up_what_every_worker_has_learnt():
    server = Accumulation(vector(10, 10))
    assert server.merge(0, vector(11, 10), {}).tolist() == [11, 10]
    assert server.merge(1, vector(10, 13), {}).tolist() == [11, 13], "it started from the same"
    # Worker 0 has gone on from (11, 10), which it knows, by (+1, 0).
    assert server.merge(0, vector(12, 10), {}).tolist() == [12, 13]


def test_a_whole_model_is_made_of_the_newest_part_of_each_learner():
    of_first = np.array([True, False, True])
    whole = WholeModel(vector(1, 2, 3), [of_first, ~of_first])
    assert whole.merge(1, vector(9, 8, 9), HALF).tolist() == [1, 8, 3]
    assert whole.merge(0, vector(5, 0, 7), HALF).tolist() == [5, 8, 7], "the other part stays"


@pytest.mark.parametrize(("policy", "groups"), [("central", 1), ("tianji", 4)])
def test_what_no_gradient_reaches_is_not_merged(policy: str, groups: int):
    """Four learners lower their epsilon alike. Added up as progress it overshot, and the sums of
    what they went back by grew until they were infinite, in checkpoints and in compiled steps."""
    experiment = make_experiment(actors=4, groups=groups, staleness=StalenessSpec(mode="unbounded"))
    experiment = msgspec.structs.replace(experiment, algorithm={"name": "dqn"})
    cut = build_graph(read_policy(policy), experiment).cut
    blueprint = make_blueprint(experiment, cut)
    network = blueprint.algorithm.network()
    model = np.concatenate([p.detach().numpy().reshape(-1) for p in network.parameters()])
    frozen = [not p.requires_grad for p in network.parameters() for _ in range(p.numel())]
    assert sum(frozen) == 1
    executor, shares = ReducerExecutor(blueprint), dict.fromkeys(range(4), 0.25)
    for step in range(40):
        model[frozen] = epsilon = np.float32(1 - 0.02 * step)
        for group in range(4):
            weights = Weights(step, model.copy().view(np.uint8))
            (answer,) = executor.perform(MergeModel(group, weights, shares, has_answer=True))
            assert answer.weights.buffer.view(np.float32)[frozen] == epsilon


def test_addresses_of_a_cut_name_every_role_once():
    cut = Cut(
        policy="p",
        actors=3,
        groups=2,
        merge="average",
        has_remote_env=True,
        staleness=StalenessSpec(),
    )
    assert len(set(cut.addresses)) == len(cut.addresses) == 3 + 2 + 2 + 3 + 1


def normalizing(key: str, groups: int, actors: int) -> Experiment:
    if key == "algorithm.normalize_reward":
        return make_experiment(groups=groups, actors=actors, normalize_reward=True)
    experiment = make_experiment(groups=groups, actors=actors)
    network = msgspec.structs.replace(experiment.network, normalize_observation=True)
    return msgspec.structs.replace(experiment, network=network)


@pytest.mark.parametrize("key", ["network.normalize_observation", "algorithm.normalize_reward"])
@pytest.mark.parametrize(
    ("policy", "groups"), [("central", 1), ("tianji", 2), ("multi-learner", 1)]
)
def test_several_learners_may_normalise(policy: str, groups: int, key: str):
    experiment = normalizing(key, groups, actors=2)
    make_blueprint(experiment, build_graph(read_policy(policy), experiment).cut)


class Normalising:
    """Learners of several groups and their reducer, as far as observations are normalised."""

    def __init__(self, policy: str, groups: int) -> None:
        experiment = normalizing("network.normalize_observation", groups, actors=3)
        blueprint = make_blueprint(experiment, build_graph(read_policy(policy), experiment).cut)
        self.reducer = ReducerExecutor(blueprint)
        self.learners = [LearnerExecutor(blueprint, None, ManualClock()) for _ in range(3)]
        self._random = np.random.default_rng(0)
        self.values: list[np.ndarray] = []
        """All that any learner has seen."""

    def see(self, group: int, count: int) -> None:
        values = self._random.normal(5 * group, 1 + group, (count, 4)).astype(np.float32)
        self.values.append(values)
        self.learners[group]._state.network.input.learn(torch.from_numpy(values))

    def offer(self, group: int, has_answer: bool = True) -> Weights:
        (exported,) = self.learners[group].perform(ExportModel())
        shares = dict.fromkeys(range(3), 1 / 3)
        order = MergeModel(group, exported.weights, shares, has_answer)
        (merged,) = self.reducer.perform(order)
        return merged.weights

    def blend(self, group: int, merged: Weights) -> None:
        self.learners[group].perform(BlendModel(merged))

    def check(self, group: int) -> None:
        """This learner has counted every value of every learner once."""
        statistics, seen = self.learners[group]._state.network.input.statistics, self.values
        every = np.concatenate(seen).astype(np.float64)
        assert float(statistics.count) == len(every)
        np.testing.assert_allclose(statistics.mean.detach(), every.mean(0), rtol=1e-5)
        np.testing.assert_allclose(statistics.variance.detach(), every.var(0), rtol=1e-5)


@pytest.mark.parametrize(("policy", "groups"), [("central", 1), ("tianji", 3)])
def test_merged_statistics_count_every_sample_of_every_learner_once(policy: str, groups: int):
    run = Normalising(policy, groups)
    for turn in range(12):
        for group in range(3):
            run.see(group, 20 + 7 * group + turn)
            merged = run.offer(group, has_answer=True)
            run.see(group, 11)  # while its model is away
            run.blend(group, merged)
    for group in (0, 1, 2, 0, 1):  # what was seen last comes with the next model
        run.blend(group, run.offer(group))
    for group in range(3):
        run.check(group)


@pytest.mark.parametrize(("policy", "groups"), [("central", 1), ("tianji", 3)])
def test_an_answer_that_is_lost_costs_no_sample_of_the_statistics(policy: str, groups: int):
    run = Normalising(policy, groups)
    for group in range(3):
        run.see(group, 50)
        run.blend(group, run.offer(group))
    run.see(1, 30)
    run.offer(1)  # its answer never comes
    run.see(1, 9)
    for group, has_answer in ((1, False), (0, True), (2, True), (1, True)):
        run.blend(group, run.offer(group, has_answer))
    for group in range(3):
        run.check(group)


@pytest.mark.parametrize("policy", ["central", "tianji", "local"])
def test_a_single_learner_may_normalise_with_every_policy(policy: str):
    experiment = normalizing("network.normalize_observation", 1, actors=1)
    make_blueprint(experiment, build_graph(read_policy(policy), experiment).cut)
