"""`tianji up`: check, start, watch, collect."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.config_file import Document, load_experiment
from engine.errors import EXIT_INTERRUPTED, ConfigError, PreflightError, RunFailedError, TianJiError
from engine.roles.totals import RunInfo
from engine.runtime.coordinate import write_summary
from engine.runtime.launch import Failed, HostFacts
from engine.trace.summary import RunStatus, Summary
from tianji_cli.clocks import ClockOffset
from tianji_cli.files import find_file
from tianji_cli.hosted_run import HostedRun, Spectator, error_of
from tianji_cli.interrupts import Interrupts
from tianji_cli.inventory import load_inventory
from tianji_cli.laggards import words_of_laggards
from tianji_cli.manifest import write_manifest
from tianji_cli.output import Output
from tianji_cli.plan import Plan, make_plan
from tianji_cli.render.hosts import PhaseLog
from tianji_cli.render.live import Display, LiveDisplay, NoDisplay, PlainDisplay
from tianji_cli.run_dir import (
    RunPaths,
    check_run_id,
    create_run,
    new_run_id,
    probe_results,
    refuse_existing,
)
from tianji_cli.seats import HostOffer, seats_of
from tianji_cli.watch import Outcome

DEFAULT_INVENTORY = "inventories/local.yaml"
DEFAULT_EXPERIMENT = "experiments/cartpole_ppo.yaml"


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    inventory: str
    experiment: str
    settings: Sequence[str]
    results: Path
    name: str | None
    detaches: bool = False
    limit: Sequence[str] = ()


@dataclass(frozen=True)
class Loaded:
    """The user's files, checked as far as they can be without starting anything."""

    plan: Plan
    document: Document


def load(request: Request) -> Loaded:
    """Reads experiment, inventory and policy, and makes the plan.

    Raises:
        ConfigError: One of them cannot be used.
    """
    inventory = load_inventory(find_file("inventories", request.inventory))
    inventory = inventory.limited(list(request.limit))
    path = find_file("experiments", request.experiment)
    experiment, document = load_experiment(path, request.settings)
    try:
        plan = make_plan(experiment, inventory)
    except ConfigError as error:
        raise locate(error, document) from error
    return Loaded(plan, document)


def up(request: Request, output: Output) -> int:
    """Runs an experiment to its end.

    Returns:
        The exit code: 0, 1 if the run failed, 130 if it was interrupted.

    Raises:
        TianJiError: Nothing was started; the error says why.
    """
    loaded = load(request)
    run_id = check_run_id(
        request.name or new_run_id(loaded.plan.experiment.name),
        "--name" if request.name else loaded.document.where(("name",)),
    )
    probe_results(request.results)
    refuse_existing(request.results, run_id)
    interrupts = Interrupts()
    run = _run_inline if loaded.plan.graph.is_inline else _run_processes
    try:
        paths, outcome = run(loaded, request, run_id, interrupts, output)
    except KeyboardInterrupt:
        output.say("interrupted before anything was started")
        return EXIT_INTERRUPTED
    if outcome.is_detached:
        return _leave(paths, output)
    return _conclude(paths, outcome, interrupts.count > 0, output)


def check_only(request: Request, output: Output) -> Plan:
    """What `up` checks before it starts anything, on the hosts as well.

    Raises:
        TianJiError: Something cannot be used.
    """
    loaded = load(request)
    probe_results(request.results)
    if loaded.plan.graph.is_inline:
        return loaded.plan
    run = HostedRun(loaded.plan, f"check-{os.getpid()}", request.results)
    phases = PhaseLog(output, loaded.plan.hosts)
    spectator = Spectator(phases.show, lambda _: None, lambda _: None, output.say)
    try:
        run.check(Interrupts(), spectator)
    except ConfigError as error:
        raise locate(error, loaded.document) from error
    finally:
        phases.close()
    return loaded.plan


def locate(error: TianJiError, document: Document) -> TianJiError:
    """The same error, with file and line of the key that it names."""
    if not error.where or error.where.startswith("policy "):
        where = document.where(("policy",))
        return type(error)(f"{error.where}: {error.what}", where=where, fix=error.fix)
    path = tuple(error.where.split("."))
    return type(error)(error.what, where=document.where(path), fix=error.fix)


def _run_processes(
    loaded: Loaded, request: Request, run_id: str, interrupts: Interrupts, output: Output
) -> tuple[RunPaths, Outcome]:
    plan = loaded.plan
    run = HostedRun(plan, run_id, request.results, request.detaches)
    display: list[Display] = []
    phases = PhaseLog(output, plan.hosts)

    def started(paths: RunPaths) -> None:
        phases.close()
        output.say(f"run {run_id} · {_headline(plan)}")
        display.append(_display(output, run_id))

    spectator = Spectator(phases.show, started, lambda p: display[0].show(p), output.say)
    with interrupts.installed():
        try:
            outcome = run.run(interrupts, spectator)
        except ConfigError as error:
            raise locate(error, loaded.document) from error
        finally:
            phases.close()
            for item in display:
                item.close()
    if run.unclean:
        outcome.unclean = error_of(run.unclean, run_id)
    return run.paths, outcome


def _run_inline(
    loaded: Loaded, request: Request, run_id: str, interrupts: Interrupts, output: Output
) -> tuple[RunPaths, Outcome]:
    """The debug twin: in this process, so the heavy imports are here."""
    from engine.runtime.blueprint import make_blueprint
    from engine.runtime.facts import host_facts
    from engine.runtime.inline import InlineRun

    plan = loaded.plan
    try:
        blueprint = make_blueprint(plan.experiment, plan.graph.cut)
    except TianJiError as error:
        raise locate(error, loaded.document) from error
    paths = _create(request.results, run_id, plan, host_facts())
    output.say(f"run {run_id} · {_headline(plan)}")
    display = _display(output, run_id)
    info = RunInfo(run_id=run_id, **plan.info_counts)
    run = InlineRun(blueprint, info, plan.addresses, paths.root, display.show)

    def stop() -> None:
        if interrupts.count == 1:
            run.request_stop()
        else:
            signal.default_int_handler(signal.SIGINT, None)

    outcome = Outcome()
    try:
        with interrupts.installed(stop):
            run.run()
    except KeyboardInterrupt:
        output.say("ended at once")
    except Exception:  # noqa: BLE001 - whatever user code raised ends the run by name, as a role's
        tail = traceback.format_exc().splitlines()
        outcome.failures.append(Failed(address="the run", cause="raised", log_tail=tail))
    finally:
        display.close()
    return paths, outcome


def _create(results: Path, run_id: str, plan: Plan, facts: HostFacts) -> RunPaths:
    host = plan.inventory.hosts[0].name
    try:
        paths = create_run(results, run_id)
        (paths.logs / host).mkdir()
        zero = {host: ClockOffset(0, 0)}
        seats = seats_of(plan, {host: HostOffer()})
        write_manifest(paths, plan.experiment, plan.inventory, {host: facts}, seats, zero)
    except OSError as error:
        raise PreflightError(f"the run cannot be written: {error}", where=str(results)) from error
    return paths


def _headline(plan: Plan) -> str:
    experiment = plan.experiment
    return (
        f"{experiment.algorithm_name} on {experiment.env.id}, policy {experiment.policy},"
        f" {plan.graph.count('actor')} actors"
    )


def _display(output: Output, title: str) -> Display:
    if output.verbosity < 0:
        return NoDisplay()
    return LiveDisplay(output.notes, title) if output.is_animated else PlainDisplay(output.notes)


def _conclude(paths: RunPaths, outcome: Outcome, was_interrupted: bool, output: Output) -> int:
    """Prints the summary and chooses the exit code."""
    for failure in outcome.failures:
        note = f"{failure.address} {failure.cause}; its log is in {paths.logs}"
        output.say(note, at_verbosity=1)
    if not paths.summary.is_file():
        status: RunStatus = "interrupted" if was_interrupted else "failed"
        _write_missing_summary(paths, status, _cause(outcome))
    summary = msgspec.json.decode(paths.summary.read_bytes(), type=Summary)
    if output.is_json:
        output.document(summary)
    else:
        from tianji_cli.render.tables import summary_table

        output.data.print(summary_table(summary))
        output.say(f"results: {paths.root}   plots: tianji report {paths.run_id}")
    if outcome.unclean is not None:
        output.error(outcome.unclean)
    if summary.status == "failed":
        late = words_of_laggards(paths) if summary.stop_reason == "join-deadline" else ""
        cause = f"{summary.error or 'unknown cause'}{late}"
        output.error(RunFailedError(cause, where=str(paths.logs)))
    code = {"ok": 0, "failed": 1, "interrupted": EXIT_INTERRUPTED}[summary.status]
    return outcome.unclean.exit_code if outcome.unclean and code == 0 else code


def _leave(paths: RunPaths, output: Output) -> int:
    """Says how to come back to a detached run."""
    run_id = paths.run_id
    if output.is_json:
        output.document(DetachedDocument(run_id=run_id))
    output.say(
        f"run {run_id} goes on by itself; tianji status {run_id}, tianji logs {run_id} -f,"
        f" tianji down {run_id}"
    )
    return 0


class DetachedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `up --detach --json` prints."""

    schema_version: int = 1
    run_id: str
    status: str = "detached"


def _write_missing_summary(paths: RunPaths, status: RunStatus, cause: str) -> None:
    """The coordinator did not live to write it: rebuilds it from what was traced until then.

    Raises:
        RunFailedError: Nothing was traced.
    """
    from tianji_cli.analysis.rebuild import rebuild_summary
    from tianji_cli.analysis.run import load_run

    try:
        rebuilt = rebuild_summary(load_run(paths))
    except ConfigError as error:
        raise RunFailedError(cause, where=str(paths.root), fix=error.fix) from error
    taken = rebuilt.env_steps_consumed + rebuilt.env_steps_dropped
    summary = msgspec.structs.replace(
        rebuilt,
        status=status,
        error=cause,
        stop_reason="killed",
        env_steps_in_flight=rebuilt.env_steps_collected - taken,
    )
    write_summary(paths.summary, summary)


def _cause(outcome: Outcome) -> str:
    if not outcome.failures:
        for host, cause in outcome.lost.items():
            return f"host {host} was lost: {cause}"
        return "the run was ended before it could write its summary"
    first = outcome.failures[0]
    tail = "".join(f"\n    {text}" for text in first.log_tail)
    return f"{first.address} {first.cause}{tail}"
