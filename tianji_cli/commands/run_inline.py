"""Runs a policy without other processes, such as `local`, in the command's own."""

from __future__ import annotations

import os
import signal
import traceback
from typing import TYPE_CHECKING

from engine.blame import told
from engine.control_protocol import Failed, HostFacts
from engine.devices.visible import find_devices
from engine.errors import PreflightError, TianJiError
from engine.files import read_umask
from engine.host.arithmetic import make_reproducible
from engine.host.malloc import reading_libraries
from engine.progress import Progress
from engine.search_path import look_in
from engine.trace.warm_start import match
from tianji_cli.commands.run_request import (
    Loaded,
    UpRequest,
    locate,
)
from tianji_cli.interrupts import Interrupts
from tianji_cli.output import Output
from tianji_cli.planning.resources import (
    HostResources,
    ProcessResources,
    resources_of,
    words_of_devices,
)
from tianji_cli.render.live import display_for
from tianji_cli.runs.manifest import write_manifest
from tianji_cli.runs.monitor import RunOutcome
from tianji_cli.runs.starting_point import StartingPoint, place_copy
from tianji_cli.runs.warm_start import InitialWeights
from tianji_cli.storage.clock_sync import ClockOffset
from tianji_cli.storage.run_dir import (
    RunPaths,
    make_run_tree,
    undone_unless_begun,
)
from tianji_cli.tracking.trackers import Trackers

if TYPE_CHECKING:
    from engine.blueprint import Blueprint


def run_inline(
    loaded: Loaded,
    request: UpRequest,
    paths: RunPaths,
    interrupts: Interrupts,
    output: Output,
    trackers: Trackers,
) -> RunOutcome:
    """Runs policy `local` in this process, so the heavy imports are here."""
    with reading_libraries():
        from engine.host.user_code import no_silent_exit
        from engine.runtime.inline import InlineRun
        from engine.supervision.host_facts import host_facts

    plan, mask = loaded.plan, read_umask()
    blueprint, weights = _prepare(loaded, output)
    resources = _resources(loaded)
    _write_down(paths, loaded, weights, host_facts(), resources)
    for words in words_of_devices(resources, plan):
        output.say(words)
    trackers.start(paths)
    display = display_for(output, paths.run_id)
    info = plan.info(
        paths.run_id,
        loaded.resume_point.resumed if loaded.resume_point else None,
        weights.warm_start if weights else None,
    )
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
        if run is not None:
            for failure in trackers.failures():
                run.tell(failure)

    outcome = RunOutcome()
    try:
        with interrupts.installed(stop), no_silent_exit():
            (own,) = resources.values()
            run = InlineRun(blueprint, info, plan.addresses, paths.root, show, own.devices)
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


def _prepare(loaded: Loaded, output: Output) -> tuple[Blueprint, InitialWeights | None]:
    """Makes environment and algorithm for the first time, and takes the weights to start with.

    Raises:
        TianJiError: Something of it cannot be used; it names the line of the user's file.
    """
    from engine.blueprint import make_blueprint

    plan, mask = loaded.plan, read_umask()
    look_in(loaded.module_directories)
    output.part_from_user_code()
    if plan.experiment.staleness.is_fixed:
        make_reproducible()
    try:
        blueprint = make_blueprint(plan.experiment, plan.graph.cut, rehearses=True)
        os.umask(mask)
        return blueprint, _take_weights(loaded, blueprint, output)
    except TianJiError as error:
        raise locate(error, loaded.document, loaded.resume_point) from error


def _words_of(error: BaseException) -> list[str]:
    """The user's own line first; errors of this program need no traceback."""
    if isinstance(error, TianJiError):
        return str(error).splitlines()
    lines = "".join(traceback.format_exception(error)).splitlines()
    return [*told(error).splitlines(), *(f"    {line}" for line in lines)]


def _take_weights(loaded: Loaded, blueprint: Blueprint, output: Output) -> InitialWeights | None:
    """The weights of a former run that this one starts with, if it does; says which."""
    from engine.executors.warm_start import wanted_tensors

    source = loaded.weights_source
    if source is None:
        return None
    taken = match(source.tensors, wanted_tensors(blueprint.algorithm))
    weights = source.take(taken)
    for words in source.words(taken):
        output.say(words)
    return weights


def _resources(loaded: Loaded) -> dict[str, ProcessResources]:
    """The resources of this process, which shares the command's own devices.

    Raises:
        PreflightError: A GPU that was asked for is not there.
    """
    plan = loaded.plan
    (host,) = plan.hosts
    found = find_devices(host.gpus)
    if host.gpus is not None:
        found = tuple(found[number] for number in host.gpus if number < len(found))
    return resources_of(plan, {host.name: HostResources(devices=found)})


def _write_down(
    paths: RunPaths,
    loaded: Loaded,
    weights: InitialWeights | None,
    facts: HostFacts,
    resources: dict[str, ProcessResources],
) -> None:
    """Makes the run's directories: from now on the run exists."""
    plan, resume_point = loaded.plan, loaded.resume_point
    host = plan.inventory.hosts[0].name
    zero = {host: ClockOffset(0, 0)}
    resumed = resume_point.resumed if resume_point else None
    warm_start = weights.warm_start if weights else None
    point: StartingPoint | None = resume_point or weights
    with undone_unless_begun(paths):
        try:
            make_run_tree(paths, [host])
            write_manifest(
                paths,
                plan.experiment,
                plan.inventory,
                {host: facts},
                resources,
                zero,
                resumed,
                warm_start,
                plan.automatic,
            )
        except OSError as error:
            raise PreflightError(
                f"the run cannot be written: {error}", where=str(paths.root)
            ) from error
        if point is not None:
            place_copy(point, paths)
