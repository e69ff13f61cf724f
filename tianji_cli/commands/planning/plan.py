"""`tianji plan`: the fragments, processes and channels that `up` would start."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from rich.console import RenderableType
from rich.text import Text
from rich.tree import Tree

from engine.errors import ConfigError
from engine.host.malloc import reading_libraries
from engine.outline import Outline, OutlinedPolicy, OutlinedReplay
from engine.search_path import look_in
from engine.trace.warm_start import TakenWeights
from engine.wording import plural
from tianji_cli.commands.run_request import Loaded, UpRequest, load, locate
from tianji_cli.config.inventory import Host
from tianji_cli.output import Output
from tianji_cli.planning.chosen import Automatic, words_of
from tianji_cli.planning.devices import planned_device
from tianji_cli.planning.joint import words_of_joint
from tianji_cli.planning.placement import Placement, crowded
from tianji_cli.planning.plan import Plan
from tianji_cli.planning.resources import planned_pinning, threads_of
from tianji_cli.runs.warm_start import WeightsSource
from tianji_cli.streams import is_stdout_replaced

PLAN_SCHEMA_VERSION = 1
_WRONG_EVERYWHERE = ("network", "algorithm", "policy", "agents", "stop.return_of")
"""Keys whose errors do not come from what this machine lacks."""


class PlannedChannel(msgspec.Struct, frozen=True):
    """A value that crosses a process boundary."""

    source: str
    target: str
    carries: str
    channel: str


class PlannedWeights(msgspec.Struct, frozen=True, kw_only=True):
    """The weights of a former run that this one would start with.

    Attributes:
        run_id, checkpoint, version, return_mean: Where they are from, as in a manifest.
        weights: Which of them; `null` if the network cannot be made here.
    """

    run_id: str
    checkpoint: str
    version: int
    return_mean: float | None
    weights: TakenWeights | None


class PlanDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `plan --json` prints."""

    schema_version: int = PLAN_SCHEMA_VERSION
    policy: str
    is_inline: bool
    fragments: dict[str, tuple[str, ...]]
    processes: tuple[Placement, ...]
    channels: tuple[PlannedChannel, ...]
    network: Outline | None
    """`null` if the environment cannot be made here."""
    joint_learners: tuple[str, ...] = ()
    """How learners that make every update together meet, as text."""
    init_from: PlannedWeights | None = None
    """`null` if the run starts with initial weights, or with those of a checkpoint it resumes."""
    automatic: Automatic | None = None
    """What was chosen for these hosts; `null` if nothing was left to `auto`."""


def plan_command(request: UpRequest, svg: Path | None, output: Output) -> None:
    """Shows what `up` would start, and draws it if that is wanted.

    Raises:
        ConfigError: A file cannot be used, or the drawing not be written.
    """
    found = load(request, output)
    if svg is not None:
        draw_plan(found.plan, svg)
    show_plan(found, output)
    found.tell(output)


def show_plan(loaded: Loaded, output: Output) -> None:
    """Prints a plan as a tree or as one JSON document.

    Args:
        loaded: The plan, and where own modules and initial weights are.
        output: Where to.
    """
    plan, source = loaded.plan, loaded.weights_source
    outline, taken = _outline(loaded, output)
    if output.is_json:
        output.document(_document(plan, outline, source, taken))
    else:
        output.data.print(_tree(plan, outline, source, taken))
    cores = {host.name: known for host in plan.hosts if (known := _num_cores(host))}
    warnings = [f"over-subscribed: {words}" for words in crowded(plan.placements, cores)]
    for words in () if plan.graph.is_inline else warnings:
        output.say(words)


def draw_plan(plan: Plan, path: Path) -> None:
    """Writes a plan as an SVG file.

    Raises:
        ConfigError: The file cannot be written.
    """
    from tianji_cli.render.plan_svg import plan_svg

    try:
        path.write_text(plan_svg(plan), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(path)) from error


def _outline(loaded: Loaded, output: Output) -> tuple[Outline | None, TakenWeights | None]:
    """What the network gets and chooses, and which weights it takes; None, with a note, if the
    environment cannot be made here: only the hosts need its packages.

    Raises:
        ConfigError: The network, the algorithm or what is said of agents cannot be used, here or
            anywhere.
    """
    with reading_libraries():
        from engine.host.user_code import restored_process
        from engine.runtime.outlining import outline_of

    plan, source = loaded.plan, loaded.weights_source
    look_in(loaded.module_directories)
    if not is_stdout_replaced():
        output.part_from_user_code()
    try:
        with restored_process():
            saved = source.tensors if source else None
            outline, taken = outline_of(plan.experiment, plan.graph.cut, saved)
    except ConfigError as error:
        if error.where.startswith(_WRONG_EVERYWHERE):
            raise
        output.say(f"note: spaces and encoders are not shown: {error}")
        return None, loaded.taken
    if source is not None and taken is not None:
        try:
            source.check(taken)
        except ConfigError as error:
            raise locate(error, loaded.document) from error
    return outline, taken


def _document(
    plan: Plan, outline: Outline | None, source: WeightsSource | None, taken: TakenWeights | None
) -> PlanDocument:
    policy = plan.graph.policy
    return PlanDocument(
        policy=policy.name,
        is_inline=plan.graph.is_inline,
        fragments={name: item.functions for name, item in policy.fragments.items()},
        processes=plan.placements,
        channels=tuple(
            PlannedChannel(edge.source, edge.target, edge.carries, edge.channel)
            for edge in policy.edges
        ),
        network=outline,
        joint_learners=tuple(words_of_joint(plan)),
        init_from=_planned_weights(source, taken) if source else None,
        automatic=plan.automatic,
    )


def _planned_weights(source: WeightsSource, taken: TakenWeights | None) -> PlannedWeights:
    info = source.chosen.info
    return PlannedWeights(
        run_id=source.run_id,
        checkpoint=info.name,
        version=info.version,
        return_mean=info.return_mean,
        weights=taken,
    )


def _add_weights(tree: Tree, source: WeightsSource, taken: TakenWeights | None) -> None:
    branch = tree.add(Text(f"initial weights of {source.name}"))
    for words in [taken.summary, *taken.words] if taken else ["which fit, only the hosts can tell"]:
        branch.add(Text(words))


def _add_outline(tree: Tree, outline: Outline) -> None:
    for policy in outline.policies:
        agents = f"of {', '.join(policy.agents)}" if policy.agents != (policy.name,) else ""
        branch = tree.add(Text(f"the agents' policy {policy.name} {agents}".rstrip()))
        _add_sides(branch, policy)
    if not outline.policies:
        _add_sides(tree, outline)
    if outline.action_mask is not None:
        tree.add(f"action mask: action_mask of the environment's {outline.action_mask}")
    if outline.core is not None:
        tree.add(f"core: {outline.core}")
    if outline.replay is not None:
        tree.add(_words_of_replay(outline.replay))


def _add_sides(tree: Tree, sides: Outline | OutlinedPolicy) -> None:
    """What a network observes and chooses."""
    observation = tree.add("observation")
    for leaf in sides.observation:
        observation.add(Text(f"{leaf.name}: {leaf.space}; encoder {leaf.encoder}"))
    action = tree.add("action")
    for part in sides.action:
        choices = f"choices among {', '.join(map(str, part.choices))}" if part.choices else ""
        action.add(Text(f"{part.name}: {part.space}: {choices or plural(part.num_reals, 'real')}"))


def _words_of_replay(replay: OutlinedReplay) -> str:
    stores = f"{plural(replay.stores, 'store')} of {plural(replay.env_steps, 'env step')}"
    words = f"replay: {stores}, {replay.store_bytes / 2**20:,.1f} MiB of memory each"
    if not replay.saved_bytes:
        return f"{words}; not saved (checkpoint.replay)"
    return f"{words}; saved with checkpoints, up to {replay.saved_bytes / 2**20:,.1f} MiB of disk"


def _tree(
    plan: Plan, outline: Outline | None, source: WeightsSource | None, taken: TakenWeights | None
) -> RenderableType:
    policy, experiment = plan.graph.policy, plan.experiment
    heading = f"{experiment.name}: {experiment.algorithm_name} on {experiment.env.id}"
    tree = Tree(Text(heading, style="bold"))
    tree.add(Text.assemble("policy ", (policy.name, "bold"), f": {policy.summary}"))
    if plan.automatic is not None:
        branch = tree.add("chosen for these hosts")
        for words in words_of(plan.automatic, plan.inventory):
            branch.add(Text(words))
    if outline is not None:
        _add_outline(tree, outline)
    if source is not None:
        _add_weights(tree, source, taken)
    fragments = tree.add("fragments")
    for name, item in policy.fragments.items():
        count = sum(process.fragment == name for process in plan.graph.processes)
        fragments.add(f"{name} x {count}: {' + '.join(item.functions)}")
    channels = tree.add("channels")
    for edge in policy.edges:
        channels.add(Text(f"{edge.source} -> {edge.target}: {edge.carries} ({edge.channel})"))
    if not policy.edges:
        channels.add("none: nothing crosses a process boundary")
    if meetings := words_of_joint(plan):
        learners = tree.add("gradients are added up over")
        for words in meetings:
            learners.add(Text(words))
    for host in plan.inventory.hosts:
        cores = _num_cores(host)
        branch = tree.add(Text(f"host {host.name} ({host.connection})"))
        if any(placement.host == host.name for placement in plan.placements):
            branch.add(Text(_words_of_cores(plan, host, cores), style="dim"))
        for placement in plan.placements:
            if placement.host == host.name:
                branch.add(Text(_process_label(placement, plan)))
    return tree


def _num_cores(host: Host) -> int | None:
    """Resources of a process, as far as known without asking the host."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    known = here if host.connection == "local" else None
    return min(known, host.cores or known) if known else host.cores


def _words_of_cores(plan: Plan, host: Host, num_cores: int | None) -> str:
    if plan.graph.is_inline:
        return "1 thread, not pinned"
    threads = max(threads_of(plan)[p.process] for p in plan.placements if p.host == host.name)
    words = f"1 thread each{f', learners {threads}' if threads > 1 else ''}"
    return f"{words}; {planned_pinning(plan, host, num_cores)}"


def _process_label(placement: Placement, plan: Plan) -> str:
    if plan.graph.is_inline:
        return f"the command itself, one thread: {', '.join(placement.roles)}"
    host = next(host for host in plan.hosts if host.name == placement.host)
    device = planned_device(placement, plan, host)
    words = f"process {placement.process}"
    if placement.roles != (placement.process,):
        words += f": {', '.join(placement.roles)}"
    return f"{words}; on {device}" if device else words
