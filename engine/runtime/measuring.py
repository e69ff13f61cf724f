"""Measures shortly what an actor collects with more and more environments, and a learner takes.

Both act and learn in eager mode here: compiling takes longer than the measurement. What is compared
is how much the environments themselves cost against what a step costs once, whatever their number.
"""

from __future__ import annotations

import time

import msgspec
import torch

from engine.algorithms.base import SampleRequest
from engine.batch_shares import check_division, sharing_of
from engine.blueprint import Blueprint, make_blueprint
from engine.clock import RunClock
from engine.errors import ConfigError
from engine.executors.actor import ActorExecutor
from engine.executors.learner import LearnerExecutor
from engine.graph.cut import Cut, single_cut
from engine.graph.workload import ActorSize, MeasuredWork
from engine.roles.commands import (
    AbandonRollout,
    CollectRollout,
    Command,
    ExportWeights,
    LoadWeights,
    Update,
    UpdateFromSamples,
)
from engine.roles.events import RolloutAbandoned, RolloutCollected, WeightsExported
from engine.rollout import Rollout, Samples, SamplesInfo
from engine.spec import Experiment
from engine.wording import plural

MOST_ENVS = 256
"""Of one actor: beyond, no step that is paid once is left to be shared."""
WARM_S, COLLECT_S = 0.05, 0.2
"""How long steps of each number of environments are taken, and how long they are then counted."""
SLOW_S = 2.0
"""Larger numbers are not tried once making and stepping one has taken this long."""


def measured_work(
    experiment: Experiment, cut: Cut, *, seeks_num_envs: bool, measures: bool = True
) -> MeasuredWork:
    """Looks at an experiment's environment and algorithm, and measures them if that is wanted.

    Args:
        experiment: The run.
        cut: How it is spread over processes.
        seeks_num_envs: Whether `env.num_envs` is sought; otherwise only the one given is looked at.
        measures: Whether anything is measured.

    Raises:
        ConfigError: A module, the environment, the algorithm or a size cannot be used here.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a run has it for actors
    try:
        return _measured(experiment, cut, seeks_num_envs, measures)
    finally:
        torch.set_num_threads(num_threads)


def _measured(
    experiment: Experiment, cut: Cut, seeks_num_envs: bool, measures: bool
) -> MeasuredWork:
    least = experiment.env.num_splits if seeks_num_envs else experiment.env.num_envs
    samples = _blueprint(experiment, least).algorithm.samples()
    numbers = numbers_of_envs(samples, experiment, cut) if seeks_num_envs else [least]
    columns = samples.batch_steps // samples.rollout_steps
    sizes = [ActorSize(num_envs=number, rollouts_per_batch=columns // number) for number in numbers]
    if not measures:
        return MeasuredWork(sizes=tuple(sizes))
    tried: list[ActorSize] = []
    learnt_per_s = 0.0
    for size in sizes:
        start_s = time.monotonic()
        rate, learnt = _rates(_blueprint(experiment, size.num_envs), has_learner=not tried)
        tried.append(msgspec.structs.replace(size, env_steps_per_s=rate))
        learnt_per_s = learnt_per_s or learnt
        if time.monotonic() - start_s > SLOW_S:
            break
    return MeasuredWork(sizes=tuple(tried), learnt_per_s=learnt_per_s)


def _blueprint(experiment: Experiment, num_envs: int) -> Blueprint:
    env = msgspec.structs.replace(experiment.env, num_envs=num_envs)
    experiment = msgspec.structs.replace(experiment, env=env)
    return make_blueprint(experiment, single_cut(experiment))


def numbers_of_envs(samples: SampleRequest, experiment: Experiment, cut: Cut) -> list[int]:
    """Environments per actor that suit an experiment, each number at least twice the one before.

    Raises:
        ConfigError: None does.
    """
    columns = samples.batch_steps // samples.rollout_steps
    found: list[int] = []
    refusal: ConfigError | None = None
    for number in range(experiment.env.num_splits, MOST_ENVS + 1):
        if found and number < 2 * found[-1]:
            continue
        if samples.replay is None and (number > columns or columns % number):
            continue
        env = msgspec.structs.replace(experiment.env, num_envs=number)
        try:
            check_division(number, env.num_splits)
            sharing_of(samples, msgspec.structs.replace(experiment, env=env), cut)
        except ConfigError as error:
            refusal = refusal or error
        else:
            found.append(number)
    if not found:
        steps = plural(samples.rollout_steps, "step")
        raise refusal or ConfigError(
            f"{samples.batch_steps} is not a multiple of the {steps} of an environment's rollout,"
            " so no number of environments suits it",
            where="algorithm.batch_steps",
        )
    return found


def _rates(blueprint: Blueprint, *, has_learner: bool) -> tuple[float, float]:
    """Env steps per second that an actor collects, and those that a learner takes, or 0."""
    learner = LearnerExecutor(blueprint, None, RunClock.start_now())
    actor = ActorExecutor(blueprint, 0, 0, RunClock.start_now())
    try:
        (exported,) = learner.perform(ExportWeights(0))
        assert isinstance(exported, WeightsExported)
        actor.perform(LoadWeights(exported.weights))
        _collect(actor, WARM_S)
        num_env_steps, elapsed_s, rollout = _collect(actor, COLLECT_S, is_whole=has_learner)
        learnt = _learnt_per_s(blueprint, learner, rollout) if has_learner else 0.0
        return num_env_steps / elapsed_s, learnt
    finally:
        actor.close()
        learner.close()


def _collect(
    actor: ActorExecutor, seconds: float, *, is_whole: bool = False
) -> tuple[int, float, Rollout | None]:
    """Collects for about this time.

    Args:
        actor: With weights.
        seconds: How long.
        is_whole: Whether to go on until a rollout is complete, for at most `SLOW_S`.

    Returns:
        Env steps, the time they took, and the last rollout that was completed.
    """
    start_s = time.monotonic()
    num_env_steps, rollout = 0, None
    while True:
        actor.perform(CollectRollout(0))
        while actor.is_busy:
            elapsed_s = time.monotonic() - start_s
            is_complete = rollout is not None or not is_whole or elapsed_s >= SLOW_S
            if elapsed_s >= seconds and is_complete:
                (abandoned,) = actor.perform(AbandonRollout())
                assert isinstance(abandoned, RolloutAbandoned)
                num_env_steps += abandoned.num_env_steps
                return num_env_steps, time.monotonic() - start_s, rollout
            for event in actor.advance(max(seconds - elapsed_s, 0.0)):
                assert isinstance(event, RolloutCollected)
                num_env_steps += event.rollout.info.num_env_steps
                rollout = event.rollout


def _learnt_per_s(blueprint: Blueprint, learner: LearnerExecutor, rollout: Rollout | None) -> float:
    """Env steps that an update takes, by the time of one; 0 if there is nothing to learn from."""
    command: Command
    if (request := blueprint.replay) is not None:
        info = SamplesInfo(env_steps=0, drawn_s=0.0, age_mean_s=0.0, age_max_s=0.0)
        command = UpdateFromSamples(Samples(info, blueprint.samples.allocate()))
        env_steps = request.samples_per_batch / request.replay_ratio
    elif rollout is not None:
        command = Update((rollout,) * blueprint.rollouts_per_batch)
        env_steps = float(blueprint.rollouts_per_batch * rollout.info.num_env_steps)
    else:
        return 0.0
    first_s, second_s = (_duration_s(learner, command) for _ in range(2))
    return env_steps / min(first_s, second_s)


def _duration_s(learner: LearnerExecutor, command: Command) -> float:
    start_s = time.monotonic()
    learner.perform(command)
    return time.monotonic() - start_s
