"""`tianji up`: check, start, watch, collect."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.blame import told
from engine.config.config_file import Document, load_experiment, overlaid_experiment
from engine.control_protocol import Failed, HostFacts
from engine.errors import EXIT_INTERRUPTED, ConfigError, PreflightError, TianJiError
from engine.files import read_umask
from engine.host.malloc import reading_libraries
from engine.host.user_code import restored_process
from engine.progress import Progress
from engine.search_path import look_in, user_directories
from engine.spec import Experiment
from tianji_cli.commands.outcome import report_detached, report_outcome
from tianji_cli.config.inventory import Inventory, load_inventory
from tianji_cli.config.lookup import find_file, shipped
from tianji_cli.interrupts import Interrupts
from tianji_cli.output import Output
from tianji_cli.planning.plan import Plan, make_plan, notes_of
from tianji_cli.planning.resources import HostResources, resources_of
from tianji_cli.provisioning.provision import Phase
from tianji_cli.render.hosts import PhaseLog
from tianji_cli.render.live import Display, LiveDisplay, NoDisplay, PlainDisplay
from tianji_cli.runs.manifest import write_manifest
from tianji_cli.runs.monitor import RunOutcome
from tianji_cli.runs.resume import ResumePoint, find_resume_point, place_copy
from tianji_cli.runs.session import RunSession, error_of
from tianji_cli.storage.clock_sync import ClockOffset
from tianji_cli.storage.consent import Consent
from tianji_cli.storage.masking import filled, is_masked
from tianji_cli.storage.run_dir import (
    RunPaths,
    check_run_id,
    claim_new_run,
    claim_run,
    give_back,
    make_run_tree,
    new_run_id,
    probe_results,
    undone_unless_begun,
)
from tianji_cli.units import plural

DEFAULT_INVENTORY = "inventories/local.yaml"
DEFAULT_EXPERIMENT = "experiments/cartpole_ppo.yaml"


@dataclass(frozen=True)
class UpRequest:
    """The user's request.

    Without inventory or experiment, those of the run to `resume`, or the defaults, are used.
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
    """The user's files, checked as far as possible without starting anything."""

    plan: Plan
    document: Document
    resume_point: ResumePoint | None = None
    module_directories: tuple[str, ...] = ()
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
    resume_point = _resume_point(request, Consent(output, request.trusts))
    inventory = _inventory(request, resume_point).limited(list(request.limit))
    experiment, document = _experiment(request, resume_point)
    directories = _module_directories(document)
    try:
        is_stated = "actors" in document.data
        plan = make_plan(experiment, inventory, has_actors_stated=is_stated)
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
    notes = notes_of(plan, experiment.actors if is_stated else None)
    return Loaded(plan, document, resume_point, directories, tuple(notes))


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
    if request.inventory is None and resume_point is not None:
        return filled(
            resume_point.inventory,
            f"tianji up INVENTORY --resume {shlex.quote(str(request.resume))}",
        )
    return load_inventory(find_file("inventories", request.inventory or DEFAULT_INVENTORY))


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


def up(request: UpRequest, output: Output) -> int:
    """Runs an experiment to its end.

    Returns:
        The exit code: 0, 1 if the run failed, 130 if it was interrupted.

    Raises:
        TianJiError: Nothing was started; the error says why.
    """
    interrupts, typed = Interrupts(), request.results
    request = _absolute(request)
    with contextlib.ExitStack() as user_code:
        user_code.enter_context(restored_process(signals=()))  # `interrupts` handles those
        loaded = load(request, output)
        loaded.tell(output)
        _check_name(request, loaded)
        probe_results(request.results)
        with interrupts.installed(_end_at_once):
            paths = _claim(request, loaded)
            run = _run_inline if loaded.plan.graph.is_inline else _run_processes
            try:
                _say_begin(loaded, paths.run_id, output)
                outcome = run(loaded, request, paths, interrupts, output)
            except KeyboardInterrupt:
                output.say("interrupted before anything was started")
                return EXIT_INTERRUPTED
            finally:
                give_back(paths)
                user_code.close()
                interrupts.insist()
            was_interrupted = interrupts.count > 0
            _await_second(interrupts)
            paths = RunPaths(typed / paths.run_id)
            if outcome.is_detached:
                return report_detached(paths, output)
            return report_outcome(paths, outcome, was_interrupted, output)


def _absolute(request: UpRequest) -> UpRequest:
    """Makes paths absolute before user code runs, which can change the working directory."""
    return dataclasses.replace(request, results=request.results.absolute())


def _end_at_once() -> None:
    raise KeyboardInterrupt


def _await_second(interrupts: Interrupts) -> None:
    """After the run has ended, the first Ctrl-C has no effect; a second one ends the command."""
    known = interrupts.count

    def again() -> None:
        if interrupts.count > known + 1:
            _end_at_once()

    interrupts.on_interrupt = again


def _check_name(request: UpRequest, loaded: Loaded) -> None:
    if request.name is None:
        check_run_id(new_run_id(loaded.plan.experiment.name), loaded.document.where(("name",)))
    else:
        check_run_id(request.name, "--name")


def _claim(request: UpRequest, loaded: Loaded) -> RunPaths:
    if request.name is None:
        return claim_new_run(request.results, loaded.plan.experiment.name)
    return claim_run(request.results, request.name)


class _Terminal:
    """Shows a run: the phases of its hosts, then its progress."""

    def __init__(self, output: Output, plan: Plan, run_id: str) -> None:
        self.note = output.say
        self._output = output
        self._run_id = run_id
        self._phases = PhaseLog(output, plan.hosts)
        self._display: Display | None = None

    def phase(self, host: str, phase: Phase, detail: str) -> None:
        self._phases.show(host, phase, detail)

    def started(self, paths: RunPaths) -> None:
        self._phases.close()
        self._display = _display(self._output, self._run_id)

    def show(self, progress: Progress) -> None:
        if self._display is not None:
            self._display.show(progress)

    def close(self) -> None:
        self._phases.close()
        if self._display is not None:
            self._display.close()


def check_only(request: UpRequest, output: Output) -> Plan:
    """The checks of `up` before it starts anything, including those on the hosts.

    Raises:
        TianJiError: Something cannot be used.
    """
    loaded = load(request, output)
    loaded.tell(output)
    probe_results(request.results)
    if loaded.plan.graph.is_inline:
        return loaded.plan
    paths = RunPaths(request.results / f"check-{os.getpid()}")
    run = RunSession(loaded.plan, paths, True, module_directories=loaded.module_directories)
    terminal = _Terminal(output, loaded.plan, run.run_id)
    try:
        run.check(Interrupts(), terminal)
    except ConfigError as error:
        raise locate(error, loaded.document, loaded.resume_point) from error
    finally:
        terminal.close()
    return loaded.plan


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


def _run_processes(
    loaded: Loaded, request: UpRequest, paths: RunPaths, interrupts: Interrupts, output: Output
) -> RunOutcome:
    plan = loaded.plan
    run = RunSession(
        plan,
        paths,
        request.name is None,
        request.detaches,
        resume_point=loaded.resume_point,
        module_directories=loaded.module_directories,
    )
    terminal = _Terminal(output, plan, paths.run_id)
    with interrupts.installed():
        try:
            outcome = run.run(interrupts, terminal)
        except ConfigError as error:
            raise locate(error, loaded.document, loaded.resume_point) from error
        finally:
            terminal.close()
            if run.unclean and sys.exception() is not None:  # otherwise only the other one gets it
                output.error(error_of(run.unclean, run.paths))
    if run.unclean:
        outcome.unclean = error_of(run.unclean, run.paths)
    return outcome


def _run_inline(
    loaded: Loaded, request: UpRequest, paths: RunPaths, interrupts: Interrupts, output: Output
) -> RunOutcome:
    """Runs policy `local` in this process, so the heavy imports are here."""
    with reading_libraries():
        from engine.blueprint import make_blueprint
        from engine.host.user_code import no_silent_exit
        from engine.runtime.inline import InlineRun
        from engine.supervision.host_facts import host_facts

    plan, mask = loaded.plan, read_umask()
    look_in(loaded.module_directories)
    output.part_from_user_code()
    try:
        blueprint = make_blueprint(plan.experiment, plan.graph.cut, rehearses=True)
        os.umask(mask)
    except TianJiError as error:
        raise locate(error, loaded.document, loaded.resume_point) from error
    _write_down(paths, loaded, host_facts())
    display = _display(output, paths.run_id)
    info = plan.info(paths.run_id, loaded.resume_point.resumed if loaded.resume_point else None)
    run: InlineRun | None = None

    def stop() -> None:
        if interrupts.count == 1 and run is not None:
            run.request_stop()
        else:
            signal.default_int_handler(signal.SIGINT, None)

    def show(progress: Progress) -> None:
        os.umask(mask)  # checkpoints stay readable, even if an environment has set a umask
        interrupts.insist()
        display.show(progress)

    outcome = RunOutcome()
    try:
        with interrupts.installed(stop), no_silent_exit():
            run = InlineRun(blueprint, info, plan.addresses, paths.root, show)
            run.run()
    except BaseException as error:  # noqa: BLE001 - user code may raise anything, sys.exit() too
        if isinstance(error, KeyboardInterrupt) and interrupts.count:
            output.say("killed")
        else:
            tail = _words_of(error)
            outcome.failures.append(Failed(address="the run", cause="raised", log_tail=tail))
    finally:
        display.close()
    return outcome


def _words_of(error: BaseException) -> list[str]:
    """The user's own line first; errors of this program need no traceback."""
    if isinstance(error, TianJiError):
        return str(error).splitlines()
    lines = "".join(traceback.format_exception(error)).splitlines()
    return [*told(error).splitlines(), *(f"    {line}" for line in lines)]


def _write_down(paths: RunPaths, loaded: Loaded, facts: HostFacts) -> None:
    """Makes the run's directories: from now on the run exists."""
    plan, resume_point = loaded.plan, loaded.resume_point
    host = plan.inventory.hosts[0].name
    zero = {host: ClockOffset(0, 0)}
    resources = resources_of(plan, {host: HostResources()})
    resumed = resume_point.resumed if resume_point else None
    with undone_unless_begun(paths):
        try:
            make_run_tree(paths, [host])
            write_manifest(
                paths, plan.experiment, plan.inventory, {host: facts}, resources, zero, resumed
            )
        except OSError as error:
            raise PreflightError(
                f"the run cannot be written: {error}", where=str(paths.root)
            ) from error
        if resume_point is not None:
            place_copy(resume_point, paths)


def _say_begin(loaded: Loaded, run_id: str, output: Output) -> None:
    output.say(f"run {run_id} · {_headline(loaded.plan)}")
    if loaded.resume_point is None:
        return
    for line in loaded.resume_point.words():
        output.say(line)
    recorded = loaded.resume_point.inventory
    if is_masked(recorded) and loaded.plan.inventory.source == recorded.source:
        output.say(f"values of `env` come from {recorded.source}; results do not store them")


def _headline(plan: Plan) -> str:
    experiment = plan.experiment
    return (
        f"{experiment.algorithm_name} on {experiment.env.id}, policy {experiment.policy},"
        f" {plural(plan.graph.count('actor'), 'actor')}"
    )


def _display(output: Output, title: str) -> Display:
    if output.verbosity < 0:
        return NoDisplay()
    return LiveDisplay(output.notes, title) if output.is_animated else PlainDisplay(output.notes)
