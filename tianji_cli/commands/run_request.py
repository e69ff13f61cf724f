"""What the user wants to run: files and options read, checked, and made into a plan."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.config.config_file import Document, load_experiment, overlaid_experiment
from engine.errors import ConfigError, TianJiError
from engine.search_path import user_directories
from engine.spec import Experiment
from engine.trace.warm_start import TakenWeights
from tianji_cli.commands.sizing import ACTORS, NUM_ENVS, Sized, in_former_places, kept, sized
from tianji_cli.config.inventory import Inventory
from tianji_cli.config.lookup import find_file, shipped
from tianji_cli.output import Output
from tianji_cli.planning.plan import Plan, make_plan, notes_of
from tianji_cli.planning.teams import num_apart
from tianji_cli.runs.resume import ResumePoint, find_resume_point
from tianji_cli.runs.warm_start import KEY, WeightsSource, find_weights
from tianji_cli.slurm.hosts import hosts_of_run, refuse_former_nodes
from tianji_cli.storage.consent import Consent
from tianji_cli.storage.masking import filled
from tianji_cli.tracking.tools import Tool, check_tools

DEFAULT_INVENTORY = "inventories/local.yaml"
DEFAULT_EXPERIMENT = "experiments/cartpole_ppo.yaml"
_ENDED_BY_MANAGERS = {
    "slurm": "a run inside a Slurm job ends with the job, and the job with this command",
    "ray": "Ray ends a run on its nodes with the command that has started it",
}


@dataclass(frozen=True)
class UpRequest:
    """The user's request.

    Without inventory or experiment, those of the run to `resume`, or the defaults, are used. With
    `uses_slurm`, the nodes of this command's Slurm job are hosts, besides those of the inventory.
    One that `continues` goes on with an earlier run of its `name`, if there is one.
    """

    inventory: str | None
    experiment: str | None
    settings: Sequence[str]
    results: Path
    name: str | None
    detaches: bool = False
    limit: Sequence[str] = ()
    resume: str | None = None
    trusts: bool = False
    policy: str | None = None
    seed: int | None = None
    profiles: bool = False
    trackers: Sequence[str] = ()
    uses_slurm: bool = False
    continues: bool = False

    @property
    def all_settings(self) -> list[str]:
        """Settings given as options of their own come last, so that they win."""
        return [*self.settings, *(f"{key}={text}" for key, text, _ in self._options())]

    @property
    def setting_options(self) -> dict[str, str]:
        """The option as typed for such a setting, by its key."""
        return {key: option for key, _, option in self._options()}

    def _options(self) -> Iterator[tuple[str, str, str]]:
        if self.policy is not None:
            yield "policy", json.dumps(self.policy, ensure_ascii=False), f"--policy {self.policy}"
        if self.seed is not None:
            yield "seed", str(self.seed), f"--seed {self.seed}"
        if self.profiles:
            yield "profile", "true", "--profile"


@dataclass(frozen=True)
class Loaded:
    """The user's files, checked as far as possible without starting anything.

    Attributes:
        plan, document: The plan, and the experiment's file.
        resume_point: The checkpoint to resume, if any.
        weights_source: Where initial weights are to be taken from, if anywhere.
        taken: Which of these fit, if hosts have been asked.
        module_directories: Of the user's own modules.
        notes: Parts of the files that the run does not use.
    """

    plan: Plan
    document: Document
    resume_point: ResumePoint | None = None
    weights_source: WeightsSource | None = None
    taken: TakenWeights | None = None
    module_directories: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    notes: tuple[str, ...] = ()

    def tell(self, output: Output) -> None:
        """Prints the parts of the user's files that the run does not use."""
        for note in self.notes:
            output.say(f"note: {note}")


def load(request: UpRequest, output: Output | None = None) -> Loaded:
    """Reads experiment, inventory and policy, and makes the plan.

    Args:
        request: The user's request.
        output: Where the user is asked about a run to resume that was not started here.

    Raises:
        ConfigError: One of them cannot be used.
    """
    consent = Consent(output, request.trusts)
    resume_point = _resume_point(request, consent)
    inventory = _inventory(request, resume_point)
    experiment, document = _experiment(request, resume_point)
    if resume_point is not None:
        resume_point = resume_point.with_replays(experiment)
    directories = _module_directories(document)
    is_stated = "actors" in document.data or experiment.staleness.is_fixed
    try:
        apart = num_apart(experiment, directories)
        found = _sized(experiment, inventory, document, resume_point, directories, apart)
        plan = make_plan(
            found.experiment, found.inventory, has_actors_stated=is_stated, num_apart=apart
        )
        plan = replace(plan, automatic=found.automatic)
    except ConfigError as error:
        raise locate(error, document, resume_point) from error
    try:
        if resume_point is not None:
            resume_point.check(plan.experiment)
    except ConfigError as error:
        raise locate(error, document) from error
    if request.detaches and plan.graph.is_inline:
        raise ConfigError(
            f"a run of policy {plan.experiment.policy} is this process and ends with it",
            where="--detach",
            fix="leave it out, or use another policy",
        )
    source = _weights_source(request, experiment, document, consent)
    is_number = is_stated and ACTORS not in document.automatic
    notes = notes_of(plan, experiment.actors if is_number else None)
    notes += _notes_on_defaults(plan.experiment, document, is_resumed=resume_point is not None)
    if experiment.init_from is not None and source is None:
        notes.append("init_from is not used: the run goes on with the weights of its checkpoint")
    return Loaded(
        plan,
        document,
        resume_point,
        source,
        module_directories=directories,
        tools=_tools(request),
        notes=tuple(notes),
    )


def _sized(
    experiment: Experiment,
    inventory: Inventory,
    document: Document,
    resume_point: ResumePoint | None,
    directories: Sequence[str],
    apart: int,
) -> Sized:
    """Chooses what is `auto`; a resumed run keeps what was chosen, unless a setting asks anew.

    With a fixed lag nothing may depend on the hosts, so `auto` is the default.
    """
    keys = document.automatic
    if resume_point is not None:
        held = keys - document.settings
        experiment, keys = kept(experiment, resume_point.experiment, held), keys - held
        inventory = in_former_places(inventory, resume_point.inventory)
    if experiment.staleness.is_fixed:
        keys = frozenset()
    return sized(experiment, inventory, keys, directories=directories, num_apart=apart)


def _notes_on_defaults(
    experiment: Experiment, document: Document, *, is_resumed: bool
) -> list[str]:
    """Says where `auto` is the default, since the lag is fixed."""
    if not experiment.staleness.is_fixed:
        return []
    used = {ACTORS: experiment.actors, NUM_ENVS: experiment.env.num_envs}
    keys = document.automatic & document.settings if is_resumed else document.automatic
    return [
        f"{'.'.join(key)}=auto is {used[key]}, the default: with a fixed lag, no host changes it"
        for key in sorted(keys)
    ]


def check_files(request: UpRequest, output: Output | None = None) -> Experiment:
    """The experiment of a request whose hosts are not known yet.

    Raises:
        ConfigError: A file or setting cannot be used.
    """
    resume_point = _resume_point(request, Consent(output, request.trusts))
    if request.inventory is not None:
        find_file("inventories", request.inventory)
    experiment, document = _experiment(request, resume_point)
    _weights_source(request, experiment, document, Consent(output, request.trusts))
    _tools(request)
    return experiment


def _weights_source(
    request: UpRequest, experiment: Experiment, document: Document, consent: Consent
) -> WeightsSource | None:
    """Where the run takes initial weights from; one that is resumed has weights already."""
    if experiment.init_from is None:
        return None
    where = document.where((KEY,))
    if request.resume is None:
        try:
            return find_weights(request.results, experiment.init_from, consent)
        except ConfigError as error:
            place = f"{error.where}: " if error.where not in ("", KEY) else ""
            raise ConfigError(f"{place}{error.what}", where=where, fix=error.fix) from error
    if (KEY,) in document.settings:
        raise ConfigError(
            "a resumed run goes on with the weights of its checkpoint",
            where=where,
            fix="leave it out, or start a new run from these weights without --resume",
        )
    return None


def _tools(request: UpRequest) -> tuple[Tool, ...]:
    """The trackers, which end with this command.

    Raises:
        ConfigError: One cannot be used, or the command does not stay.
    """
    if request.trackers and request.detaches:
        tracker = request.trackers[0]
        raise ConfigError(
            "trackers end with this command, which does not stay",
            where="--detach",
            fix=f"leave it out, or follow the run afterwards: tianji track --to {tracker}",
        )
    return check_tools(request.trackers, "--track")


def _module_directories(document: Document) -> tuple[str, ...]:
    """Directories of own modules: the working directory, and that of the experiment."""
    file = Path(document.source)
    beside = file.parent.absolute()
    is_own = file.is_file() and beside != shipped("experiments")
    return tuple(dict.fromkeys([*user_directories(), *([str(beside)] if is_own else [])]))


def _resume_point(request: UpRequest, consent: Consent) -> ResumePoint | None:
    if request.resume is None:
        return None
    return find_resume_point(request.results, request.resume, consent)


def _inventory(request: UpRequest, resume_point: ResumePoint | None) -> Inventory:
    """The hosts that the request selects; nodes of a Slurm job as the job has them."""
    given, uses_slurm = request.inventory, request.uses_slurm
    if given is None and resume_point is not None and not uses_slurm:
        run = shlex.quote(str(request.resume))
        former = filled(resume_point.inventory, f"tianji up INVENTORY --resume {run}")
        former = former.limited(list(request.limit))
        refuse_former_nodes(former, run)
        return former
    name = given if uses_slurm else given or DEFAULT_INVENTORY
    path = None if name is None else find_file("inventories", name)
    inventory = hosts_of_run(path, request.limit, uses_slurm=uses_slurm)
    if request.detaches:
        _refuse_to_detach(inventory)
    return inventory


def _refuse_to_detach(inventory: Inventory) -> None:
    """Raises ConfigError if the manager of a host ends the run with this command."""
    for host in inventory.hosts:
        if host.connection in _ENDED_BY_MANAGERS:
            raise ConfigError(
                _ENDED_BY_MANAGERS[host.connection], where="--detach", fix="leave it out"
            )


def _experiment(
    request: UpRequest, resume_point: ResumePoint | None
) -> tuple[Experiment, Document]:
    if request.experiment is None and resume_point is not None:
        source = f"run {resume_point.paths.run_id}"
        return overlaid_experiment(
            resume_point.experiment, source, request.all_settings, request.setting_options
        )
    path = find_file("experiments", request.experiment or DEFAULT_EXPERIMENT)
    return load_experiment(path, request.all_settings, request.setting_options)


def locate(
    error: TianJiError, document: Document, resume_point: ResumePoint | None = None
) -> TianJiError:
    """The same error, with file and line of its key, and a fix that a resumed run allows."""
    if resume_point is not None:
        error = resume_point.advised(error)
    if not error.where or error.where.startswith("policy "):
        where = document.where(("policy",))
        return type(error)(f"{error.where}: {error.what}", where=where, fix=error.fix)
    path = tuple(error.where.split("."))
    if path[0] not in Experiment.__struct_fields__:
        return error  # it concerns a host or the inventory
    return type(error)(error.what, where=document.where(path), fix=error.fix)
