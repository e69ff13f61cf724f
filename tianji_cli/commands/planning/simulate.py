"""`tianji plan --simulate`: what a measured run would do on other hosts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.text import Text

from engine.config.config_file import overlaid_experiment, require_numbers
from engine.errors import ConfigError, PreflightError
from engine.graph.dataflow import build_graph
from engine.graph.policy import is_policy_file, read_policy
from engine.host.malloc import reading_libraries
from engine.search_path import look_in, user_directories
from engine.spec import Experiment
from engine.trained.run import experiment_of
from engine.wording import plural
from tianji_cli.analysis.run import load_run
from tianji_cli.commands.run_request import UpRequest
from tianji_cli.config.cluster import ClusterSpec, load_cluster
from tianji_cli.output import Output
from tianji_cli.planning.teams import num_apart
from tianji_cli.runs.manifest import DECIDING
from tianji_cli.simulation.costs import Costs
from tianji_cli.simulation.costs_of_run import costs_of
from tianji_cli.simulation.forecast import Forecast, forecast
from tianji_cli.simulation.measured import Measured
from tianji_cli.storage.consent import Consent
from tianji_cli.storage.json_files import read_document
from tianji_cli.storage.ownership import checksum_of
from tianji_cli.storage.run_dir import RunPaths, resolve_run
from tianji_cli.streams import is_stdout_replaced

if TYPE_CHECKING:
    from tianji_cli.simulation.forecast import Sizing

FORECAST_SCHEMA_VERSION = 1
MOST_HOSTS = 4096
SIZES = frozenset({"rollout_steps", "batch_steps", "minibatch_steps", "batch_size"})
"""Hyperparameters that change how much work there is, but not what a piece of it costs."""


@dataclass(frozen=True)
class SimulateRequest:
    """The user's request.

    Attributes:
        sizes: Numbers of hosts, as typed.
        run: The measured run.
        cluster: File that describes the hosts.
        plot: Directory for the figure.
        up: Settings that are laid over the run's experiment, and where results are.
    """

    sizes: str
    run: str | None
    cluster: Path | None
    plot: Path | None
    up: UpRequest


class ForecastDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `plan --simulate --json` prints."""

    schema_version: int = FORECAST_SCHEMA_VERSION
    forecast: Forecast
    costs: Costs


def simulate_command(request: SimulateRequest, output: Output) -> None:
    """Simulates a run at several sizes, and shows what it would do.

    Raises:
        ConfigError: The run does not tell what is needed, or a file cannot be used.
        PreflightError: The figure cannot be written.
    """
    hosts = parse_sizes(request.sizes)
    if request.run is None:
        raise ConfigError(
            "what the work costs is not known, and is not guessed: it is read from a run that was"
            " measured",
            where="--simulate",
            fix="tianji up --profile -s stop.seconds=60 --name measured, then add --from measured",
        )
    cluster = load_cluster(request.cluster) if request.cluster else ClusterSpec()
    paths = resolve_run(request.up.results, request.run)
    base = _experiment_of(paths, Consent(output, request.up.trusts))
    source = f"run {paths.run_id}"
    experiment, read = overlaid_experiment(
        base, source, request.up.all_settings, request.up.setting_options
    )
    require_numbers(read, "a simulated run has none")
    if experiment.staleness.is_adaptive:
        raise ConfigError(
            "`auto` moves the bound on lag over minutes, and a run is simulated for seconds",
            where=read.where(("staleness", "max_lag")),
            fix="give a number: -s staleness.max_lag=N",
        )
    check_costs_hold(base, experiment)
    if num_apart(experiment, user_directories()) > 1:
        raise ConfigError(
            "actors of several policies of a team act in the same environments, which is not"
            " simulated",
            where=f"policy {experiment.policy}",
            fix="use another policy, such as tianji, or agents=shared",
        )
    look_in(user_directories())
    if not is_stdout_replaced():
        output.part_from_user_code()
    with reading_libraries():
        from engine.host.user_code import restored_process
        from engine.runtime.sizing import workload_of
    with restored_process():
        costs = costs_of(measure(paths, base, workload_of))
        found = forecast(
            hosts,
            experiment,
            costs,
            cluster,
            workload_of,
            show=lambda count: output.say(f"simulating {plural(count, 'host')}", at_verbosity=1),
        )
    _show(found, costs, request.plot, output)


def parse_sizes(text: str) -> list[int]:
    """Numbers of hosts.

    Raises:
        ConfigError: One is none.

    >>> parse_sizes("1,2, 16")
    [1, 2, 16]
    """
    sizes = []
    for word in text.split(","):
        if not word.strip().isdecimal() or not 1 <= int(word) <= MOST_HOSTS:
            raise ConfigError(
                f"{word.strip()!r} is not a number of hosts from 1 to {MOST_HOSTS}",
                where="--simulate",
                fix="--simulate 1,2,4,8",
            )
        sizes.append(int(word))
    return sorted(set(sizes))


def measure(paths: RunPaths, experiment: Experiment, sizing: Sizing) -> Measured:
    """A run with what it was.

    Args:
        paths: The run.
        experiment: As its manifest has it.
        sizing: Looks at the sizes of its work.

    Raises:
        ConfigError: A file is damaged, or its environment cannot be made here.
    """
    graph = build_graph(read_policy(experiment.policy), experiment)
    return Measured(load_run(paths), experiment, graph, sizing(experiment, graph.cut))


def check_costs_hold(measured: Experiment, wanted: Experiment) -> None:
    """Raises ConfigError if what is wanted costs something else than what was measured."""
    changed = [
        name
        for name in ("network", "modules", "learner", "actor", "evaluation")
        if getattr(measured, name) != getattr(wanted, name)
    ]
    same = {"num_envs": measured.env.num_envs, "step_latency_ms": measured.env.step_latency_ms}
    if msgspec.structs.replace(wanted.env, **same) != measured.env:
        changed.append("env")
    names = {*measured.algorithm, *wanted.algorithm} - SIZES
    changed += [
        f"algorithm.{name}"
        for name in sorted(names)
        if measured.algorithm.get(name) != wanted.algorithm.get(name)
    ]
    if changed:
        raise ConfigError(
            "the measured run does not tell what this would cost",
            where=changed[0],
            fix="leave it out, or measure a run with it",
        )
    for name in ("actors", "groups"):
        if getattr(measured, name) != getattr(wanted, name):
            raise ConfigError(
                "it follows from the number of hosts",
                where=name,
                fix="set actors_per_host or hosts_per_group in a file, and give it with --cluster",
            )


def _experiment_of(paths: RunPaths, consent: Consent) -> Experiment:
    """The experiment of a run; the user is asked before anything is imported that it names."""
    data, where = read_document(paths.manifest), str(paths.manifest)
    experiment = experiment_of(data, where)
    named = [f"module {module}" for module, _ in experiment.named_modules]
    if is_policy_file(experiment.policy):
        named.append(f"policy {experiment.policy}")
    if named:
        consent.need(checksum_of(data, only=DECIDING), "run", where, named)
    return experiment


def _show(found: Forecast, costs: Costs, plot: Path | None, output: Output) -> None:
    from tianji_cli.render.forecast import forecast_table, words_of_forecast

    if plot is not None:
        _draw(found, plot)
    if output.is_json:
        output.document(ForecastDocument(forecast=found, costs=costs))
        return
    output.data.print(forecast_table(found))
    for words in words_of_forecast(found):
        output.data.print(Text(words))


def _draw(found: Forecast, directory: Path) -> None:
    from tianji_cli.plotting.figure_style import save
    from tianji_cli.render.figures_forecast import forecast_figure

    try:
        directory.mkdir(parents=True, exist_ok=True)
        save(forecast_figure(found), directory, "forecast")
    except OSError as error:
        raise PreflightError(
            f"the figure cannot be written: {error.strerror or error}",
            where=str(directory),
            fix="give another directory with --plot DIR",
        ) from error
