"""What the work of a measured run cost, function by function."""

from __future__ import annotations

from collections.abc import Iterable

from engine.errors import ConfigError
from engine.timing import (
    BATCHING,
    CONTROL,
    ENVIRONMENT,
    INFERENCE,
    MEETING,
    RECEIVING,
    RECORDING,
    SENDING,
    UPDATING,
    WEIGHTS,
)
from tianji_cli.analysis.profile import RoleProfile
from tianji_cli.simulation.costs import Basis, Cost, Costs, cost_of
from tianji_cli.simulation.measured import Measured

ACTING = (INFERENCE, RECORDING)
IDLE_SHARE = 0.003
"""Of a core, used by a coordinator that hears little (docs/performance.md, an idle run)."""
HANDLING = (SENDING, RECEIVING, CONTROL, WEIGHTS)


def costs_of(measured: Measured) -> Costs:
    """What the work of a run cost.

    Raises:
        ConfigError: The run is too short, or its traces do not tell; what to do is named.
    """
    measured.check()
    env_step, act = _vector_steps(measured)
    rows = measured.consumption
    one = [row for row in rows if row.learner == rows[0].learner]
    steps = (one[-1].updates_total - one[0].updates_total) / max(len(one) - 1, 1)
    return Costs(
        basis=_basis(measured),
        collect=_collect(measured, env_step, act),
        env_step=env_step,
        act=act,
        update=_update(measured),
        updates_per_batch=max(1, round(steps)),
        publish_s=_publish_s(measured),
        store=_store(measured),
        draw=_draw(measured),
        merge=_merge(measured),
        evaluate=_evaluate(measured),
        report_s=_report_s(measured),
    )


def _basis(measured: Measured) -> Basis:
    experiment, cut = measured.experiment, measured.graph.cut
    work = measured.workload.of_group(0)
    rollouts = measured.production
    fill = sum(row.env_steps for row in rollouts) / (work.rollout_steps * len(rollouts))
    return Basis(
        run_id=measured.run.paths.run_id,
        policy=cut.policy,
        num_steps=work.num_steps,
        num_envs=work.num_envs,
        latency_s=experiment.env.step_latency_ms / 1e3,
        batch_size=work.batch_size,
        rollout_fill=min(fill, 1.0),
        is_on_device=cut.is_on_device,
        is_profiled=bool(measured.profile),
        actors_per_host=measured.actors_per_host,
        cores=measured.cores,
        groups=cut.groups,
    )


def _collect(measured: Measured, env_step: Cost | None, act: Cost | None) -> Cost:
    """Of a rollout of an actor that steps its own environments.

    The traces of an actor alone in its process say how long each took. Otherwise other roles had
    turns meanwhile, and only a profile tells them apart.
    """
    if measured.is_alone("actor") and not measured.graph.cut.has_remote_env:
        walls = [row.collect_s for row in measured.production]
        roles = measured.roles("actor")
        if roles:
            share = sum(role.cpu_s for role in roles) / max(_seconds(roles), 1e-9)
        else:
            share = measured.cpu_of("actor") / sum(walls)
        return cost_of(walls, share)
    if env_step is None or act is None:
        raise ConfigError(
            f"with policy {measured.graph.cut.policy} an actor shares its process or its steps with"
            " other roles, and the traces do not say how long a rollout takes by itself",
            where=f"run {measured.run.paths.run_id}",
            fix="measure it with --profile, or measure policy tianji",
        )
    steps = measured.workload.of_group(0).num_steps
    mean_s = env_step.mean_s + act.mean_s
    share = (env_step.share * env_step.mean_s + act.share * act.mean_s) / mean_s
    return cost_of([mean_s * steps], share)


def _vector_steps(measured: Measured) -> tuple[Cost | None, Cost | None]:
    """Of one vector step: the environments', and the actor's; None without a profile."""
    actors, cut = measured.roles("actor"), measured.graph.cut
    count = len(measured.production) * measured.workload.of_group(0).num_steps
    if not actors:
        return None, None
    owners = measured.roles("environment") if cut.has_remote_env else actors
    env_s = _seconds(owners, [ENVIRONMENT])
    act_s = _seconds(actors, ACTING)
    others_s = _seconds(owners, HANDLING) + (0.0 if cut.has_remote_env else act_s)
    env_cpu_s = max(sum(role.cpu_s for role in owners) - others_s, 0.0)
    step = cost_of([env_s / count], env_cpu_s / env_s if env_s else 1.0)
    own_s = _seconds(actors, HANDLING) if cut.has_remote_env else 0.0
    return step, cost_of([(act_s + own_s) / count])


def _update(measured: Measured) -> Cost:
    """Of a batch; without the time that learners of one update wait for each other, or for a core.

    On a GPU it is the time that it takes: what the processor does meanwhile is no part of it.
    """
    walls = [row.update_s for row in measured.consumption]
    learners, busy_s = measured.roles("learner"), _seconds(measured.roles("learner"))
    own = 1.0
    if not measured.trains_on_device:
        if learners:
            own = sum(role.cpu_s for role in learners) / max(busy_s, 1e-9)
        elif measured.is_alone("learner"):
            own = measured.cpu_of("learner") / sum(walls)
    cost = cost_of(walls).times(min(own, 1.0))
    if not measured.graph.cut.is_joint:
        return cost
    if not learners:
        raise ConfigError(
            "its learners wait for each other in every update, and the traces do not say how long",
            where=f"run {measured.run.paths.run_id}",
            fix="measure it with --profile",
        )
    own_s = _seconds(learners, [UPDATING, BATCHING, WEIGHTS])
    apart = own_s / max(own_s + _seconds(learners, [MEETING]), 1e-9)
    return cost.times(apart)


def _publish_s(measured: Measured) -> float:
    """Between updates a busy learner sends weights, reports and requests; for each process that
    weights are offered to, and once besides."""
    spent_s = 0.0
    previous: dict[int, float] = {}
    for row in measured.consumption:
        before = previous.get(row.learner)
        if before is not None:
            spent_s += max(row.t_s - before - row.update_s - row.wait_s, 0.0)
        previous[row.learner] = row.t_s
    weights = [row for row in measured.run.weights if row.t_s > measured.begin_s]
    offers = sum(row.num_subscribers + 1 for row in weights)
    return spent_s / offers if offers else 0.0


def _store(measured: Measured) -> Cost:
    """Of a buffer for one rollout; nothing if another role's cost contains it."""
    count = len(measured.production)
    if measured.workload.of_group(0).replay is not None:
        return cost_of([0.0])  # `_draw` has it
    roles = measured.roles("buffer")
    if roles:
        return cost_of([_seconds(roles) / count])
    return cost_of([measured.cpu_of("buffer") / count if measured.is_alone("buffer") else 0.0])


def _draw(measured: Measured) -> Cost | None:
    """Of a replay buffer for one batch, with the rollouts that it stores meanwhile."""
    if measured.workload.of_group(0).replay is None:
        return None
    roles, count = measured.roles("buffer"), len(measured.consumption)
    if roles:
        return cost_of([_seconds(roles) / count])
    return cost_of([measured.cpu_of("buffer") / count if measured.is_alone("buffer") else 0.0])


def _merge(measured: Measured) -> Cost | None:
    from engine.trace.reader import read_table
    from engine.trace.records import Merge

    rows = [r for r in read_table(measured.run.paths.trace, Merge) if r.t_s > measured.begin_s]
    if not rows:
        return None
    roles = measured.roles("reducer")
    spent_s = _seconds(roles) if roles else measured.cpu_of("reducer")
    return cost_of([spent_s / len(rows)])


def _evaluate(measured: Measured) -> Cost | None:
    walls = [row.evaluate_s for row in measured.run.evaluations]
    return cost_of(walls) if walls else None


def _report_s(measured: Measured) -> float:
    """Of the coordinator for each report, beside what it does in any case: actors send one with
    each rollout, learners and buffers one with each batch."""
    reports = len(measured.production) + 2 * len(measured.consumption)
    known = measured.profile.get("coordinator")
    cpu_s = known.cpu_s if known else measured.cpu_of("coordinator")
    return max(cpu_s - IDLE_SHARE * measured.wall_s, 0.0) / reports


def _seconds(roles: Iterable[RoleProfile], sections: Iterable[str] | None = None) -> float:
    """Time of these roles in some sections; without them, the time in which they are busy."""
    if sections is None:
        return sum(role.busy_s for role in roles)
    names = tuple(sections)
    return sum(role.sections_s.get(name, 0.0) for role in roles for name in names)
