"""`tianji up`: check, start, watch, collect."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable

from engine.errors import EXIT_INTERRUPTED, ConfigError
from engine.host.user_code import restored_process
from engine.progress import Progress
from tianji_cli.commands.outcome import report_detached, report_outcome, where_results_are
from tianji_cli.commands.run_inline import (
    run_inline,
)
from tianji_cli.commands.run_request import (
    Loaded,
    UpRequest,
    load,
    locate,
)
from tianji_cli.interrupts import Interrupts
from tianji_cli.output import Output
from tianji_cli.planning.chosen import words_of
from tianji_cli.planning.plan import Plan
from tianji_cli.provisioning.provision import Phase
from tianji_cli.provisioning.reaching import Reach
from tianji_cli.render.hosts import PhaseLog
from tianji_cli.render.live import Display, display_for
from tianji_cli.runs.continuing import continuation
from tianji_cli.runs.monitor import RunOutcome
from tianji_cli.runs.session import RunSession, error_of
from tianji_cli.slurm.job_record import note_job
from tianji_cli.storage.masking import is_masked
from tianji_cli.storage.run_dir import (
    RunPaths,
    check_run_id,
    claim_new_run,
    claim_run,
    give_back,
    new_run_id,
    probe_results,
)
from tianji_cli.tracking.trackers import Trackers
from tianji_cli.units import plural

AFTER_ITS_END = "interrupted after the run had ended"
"""The exit code is then 130, whatever the summary says: not all of the outcome was told."""


def up(request: UpRequest, output: Output) -> int:
    """Runs an experiment to its end.

    Returns:
        The exit code: 0, 1 if the run failed, 130 if it was interrupted.

    Raises:
        TianJiError: Nothing was started; the error says why.
    """
    interrupts, typed = Interrupts(), request.results
    first = request.name
    request = _continued(_absolute(request), output)
    with contextlib.ExitStack() as user_code, contextlib.ExitStack() as tracking:
        user_code.enter_context(restored_process(signals=()))  # `interrupts` handles those
        loaded = load(request, output)
        trackers = Trackers(loaded.tools, output.say)
        tracking.callback(trackers.close)
        loaded.tell(output)
        _check_name(request, loaded)
        probe_results(request.results)
        with interrupts.installed(_end_at_once):
            paths = _claim(request, loaded)
            if request.continues and first is not None:
                note_job(paths, first)
            run = run_inline if loaded.plan.graph.is_inline else _run_processes
            try:
                _say_begin(loaded, paths.run_id, output)
                outcome = run(loaded, request, paths, interrupts, output, trackers)
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
            end_tracking = _end_tracking(trackers, interrupts)
            try:
                return report_outcome(paths, outcome, was_interrupted, output, end_tracking)
            except KeyboardInterrupt:
                output.say(f"{AFTER_ITS_END}; {where_results_are(paths)}")
                return EXIT_INTERRUPTED


def _absolute(request: UpRequest) -> UpRequest:
    """Makes paths absolute before user code runs, which can change the working directory."""
    return dataclasses.replace(request, results=request.results.absolute())


def _continued(request: UpRequest, output: Output) -> UpRequest:
    """The same request, to go on with earlier runs of its name, if it continues and there are any.

    Raises:
        ConfigError: It has no name.
    """
    if not request.continues:
        return request
    if request.name is None:
        raise ConfigError(
            "it continues the runs of a name",
            where="--continue",
            fix="give it: --name RUN",
        )
    found = continuation(request.results, check_run_id(request.name, "--name"))
    for note in found.notes:
        output.say(f"note: {note}")
    if found.resumes is None:
        return dataclasses.replace(request, name=found.name)
    return dataclasses.replace(request, name=found.name, resume=found.resumes, trusts=True)


def _end_at_once() -> None:
    raise KeyboardInterrupt


def _await_second(interrupts: Interrupts) -> None:
    """After the run has ended, the first Ctrl-C has no effect; a second one ends the command."""
    known = interrupts.count

    def again() -> None:
        if interrupts.count > known + 1:
            _end_at_once()

    interrupts.on_interrupt = again


def _end_tracking(trackers: Trackers, interrupts: Interrupts) -> Callable[[], list[str]]:
    """Waits until the trackers are done; one more Ctrl-C skips that."""
    known = interrupts.count

    def end() -> list[str]:
        return trackers.lines(trackers.finish(lambda: interrupts.count > known))

    return end


def _check_name(request: UpRequest, loaded: Loaded) -> None:
    if request.name is None:
        check_run_id(new_run_id(loaded.plan.experiment.name), loaded.document.where(("name",)))
    else:
        check_run_id(request.name, "--name")


def _claim(request: UpRequest, loaded: Loaded) -> RunPaths:
    if request.name is None:
        return claim_new_run(request.results, loaded.plan.experiment.name)
    return claim_run(request.results, request.name, is_of_job=request.continues)


class _Terminal:
    """Shows a run: the phases of its hosts, then its progress; starts its trackers."""

    def __init__(
        self, output: Output, plan: Plan, run_id: str, trackers: Trackers | None = None
    ) -> None:
        self.note = output.say
        self._trackers = trackers
        self._output = output
        self._run_id = run_id
        self._phases = PhaseLog(output, plan.hosts)
        self._display: Display | None = None

    def phase(self, host: str, phase: Phase, detail: str) -> None:
        self._phases.show(host, phase, detail)

    def started(self, paths: RunPaths) -> None:
        self._phases.close()
        self._display = display_for(self._output, self._run_id)
        if self._trackers is not None:
            self._trackers.start(paths)

    def show(self, progress: Progress) -> None:
        if self._display is not None:
            self._display.show(progress)

    def close(self) -> None:
        self._phases.close()
        if self._display is not None:
            self._display.close()


def check_only(request: UpRequest, output: Output) -> Loaded:
    """The checks of `up` before it starts anything, including those on the hosts.

    Raises:
        TianJiError: Something cannot be used.
    """
    loaded = load(request, output)
    loaded.tell(output)
    probe_results(request.results)
    if loaded.plan.graph.is_inline:
        return loaded
    paths = RunPaths(request.results / f"check-{os.getpid()}")
    run = RunSession(
        loaded.plan,
        paths,
        True,
        reach=Reach(loaded.plan.hosts),
        weights_source=loaded.weights_source,
        module_directories=loaded.module_directories,
    )
    terminal = _Terminal(output, loaded.plan, run.run_id)
    try:
        taken = run.check(Interrupts(), terminal)
    except ConfigError as error:
        raise locate(error, loaded.document, loaded.resume_point) from error
    finally:
        terminal.close()
    return dataclasses.replace(loaded, taken=taken)


def _run_processes(
    loaded: Loaded,
    request: UpRequest,
    paths: RunPaths,
    interrupts: Interrupts,
    output: Output,
    trackers: Trackers,
) -> RunOutcome:
    plan = loaded.plan
    run = RunSession(
        plan,
        paths,
        request.name is None,
        request.detaches,
        Reach(plan.hosts),
        resume_point=loaded.resume_point,
        weights_source=loaded.weights_source,
        module_directories=loaded.module_directories,
        notices=trackers.failures,
    )
    terminal = _Terminal(output, plan, paths.run_id, trackers)
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


def _say_begin(loaded: Loaded, run_id: str, output: Output) -> None:
    output.say(f"run {run_id} · {_headline(loaded.plan)}")
    if (chosen := loaded.plan.automatic) is not None:
        for line in words_of(chosen, loaded.plan.inventory):
            output.say(line)
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
