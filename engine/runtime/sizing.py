"""Looks at how much work a run is: makes its environment once, and its network."""

from __future__ import annotations

import msgspec
import torch

from engine.blueprint import Blueprint, make_blueprint
from engine.graph.cut import Cut
from engine.graph.workload import GroupWork, ReplayWork, Workload
from engine.spec import Experiment


def workload_of(experiment: Experiment, cut: Cut) -> Workload:
    """The sizes of a run's work.

    Args:
        experiment: The run.
        cut: How it is spread over processes.

    Raises:
        ConfigError: A module, the environment, the algorithm or a size cannot be used here.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # it is little work, which threads would only wait for each other in
    try:
        blueprint = make_blueprint(experiment, cut)
    finally:
        torch.set_num_threads(num_threads)
    learners = range(cut.groups if cut.is_joint else 1)
    return Workload(
        weights_bytes=blueprint.weights.num_bytes,
        groups=tuple(_group_work(blueprint.of_group(learner)) for learner in learners),
    )


def _group_work(blueprint: Blueprint) -> GroupWork:
    request, layout = blueprint.replay, blueprint.layout
    work = GroupWork(
        num_steps=layout.num_steps,
        num_envs=layout.num_envs,
        rollouts_per_batch=blueprint.rollouts_per_batch,
        rollout_bytes=layout.num_bytes,
        batch_bytes=blueprint.samples.num_bytes,
        priority_bytes=blueprint.priorities.num_bytes,
    )
    if request is None:
        return work
    replay = ReplayWork(
        ratio=request.replay_ratio,
        min_size=request.min_size,
        capacity=request.capacity,
        batch_samples=request.samples_per_batch,
        keeps_in_step=blueprint.keeps_in_step,
        has_priorities=request.priority_exponent > 0,
    )
    return msgspec.structs.replace(work, replay=replay)
