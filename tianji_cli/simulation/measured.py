"""A run as it was measured: which of its rows count, and whose processor time is whose."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from engine.errors import ConfigError
from engine.graph.dataflow import DataflowGraph
from engine.graph.workload import Workload
from engine.spec import Experiment
from engine.trace.records import Consumption, Production, Resources
from engine.wording import plural
from tianji_cli.analysis.profile import RoleProfile, profile_of
from tianji_cli.analysis.run import RunData

MIN_ROLLOUTS = 10
"""Fewer say nothing about a distribution."""
MIN_BATCHES = 3
SKIPPED = 0.2
"""Of a run, at its beginning, as of `collect_per_s`."""


@dataclass(frozen=True)
class Measured:
    """A run and what it was.

    Attributes:
        run: Its files.
        experiment, graph, workload: What it was.
    """

    run: RunData
    experiment: Experiment
    graph: DataflowGraph
    workload: Workload

    def check(self) -> None:
        """Raises ConfigError if the run is too short to tell what its work costs."""
        if len(self.run.production) < 2 or len(self.production) < MIN_ROLLOUTS:
            found = plural(len(self.run.production), "rollout")
        elif len(self.consumption) < MIN_BATCHES:
            found = plural(len(self.run.consumption), "update")
        else:
            return
        raise ConfigError(
            f"{found}, of which the first {SKIPPED:.0%} do not count, are too few to tell what its"
            " work costs",
            where=f"run {self.run.paths.run_id}",
            fix="measure a longer one, such as: tianji up --profile -s stop.seconds=60",
        )

    @cached_property
    def begin_s(self) -> float:
        """Where measuring begins: after the start, and after steps were compiled if enough of the
        run is left."""
        production = self.run.production
        first_s, last_s = production[0].t_s, production[-1].t_s
        early_s = first_s + SKIPPED * (last_s - first_s)
        compiled = [row.t_s for row in self.run.events if row.kind == "compiled"]
        late_s = max([early_s, *compiled])
        is_enough = sum(row.t_s > late_s for row in production) >= MIN_ROLLOUTS
        return late_s if is_enough else early_s

    @cached_property
    def production(self) -> list[Production]:
        """Complete rollouts that were measured."""
        begin_s = self.begin_s
        return [row for row in self.run.production if row.t_s > begin_s and row.sent]

    @cached_property
    def consumption(self) -> list[Consumption]:
        """Batches that were measured."""
        return [row for row in self.run.consumption if row.t_s > self.begin_s]

    @cached_property
    def trains_on_device(self) -> bool:
        """Whether a learner computed elsewhere than on the processor."""
        processes = self.run.manifest.section("processes").values()
        devices = [item.get("devices", {}) for item in processes if isinstance(item, dict)]
        on_device = any(role.startswith("learner-") for roles in devices for role in roles)
        return self.graph.cut.is_on_device or on_device

    @property
    def wall_s(self) -> float:
        """How long it was measured."""
        return self.run.end_s - self.begin_s

    @cached_property
    def profile(self) -> dict[str, RoleProfile]:
        """Of each role, over what was measured; empty without one."""
        rows = [row for row in self.run.profile if row.t_s > self.begin_s]
        return {role.role: role for role in profile_of(rows)}

    def roles(self, kind: str) -> list[RoleProfile]:
        """Profiles of the roles of a kind."""
        return [role for role in self.profile.values() if role.kind == kind]

    def is_alone(self, kind: str) -> bool:
        """Whether each role of this kind has a process of its own."""
        found = [p for p in self.graph.processes if _plays(p.roles, kind)]
        return bool(found) and all(len(process.roles) == 1 for process in found)

    def cpu_of(self, kind: str) -> float:
        """Processor time of all processes with such a role, over what was measured."""
        names = {p.name for p in self.graph.processes if _plays(p.roles, kind)} or {kind}
        return sum(self._cpu_s[name] for name in names)

    @cached_property
    def _cpu_s(self) -> Mapping[str, float]:
        spans: dict[tuple[str, int], list[Resources]] = {}
        for row in self.run.resources:
            if row.t_s > self.begin_s:
                spans.setdefault((row.process, row.pid), []).append(row)
        found: defaultdict[str, float] = defaultdict(float)
        for (process, _), rows in spans.items():
            span_s = rows[-1].t_s - rows[0].t_s
            if span_s > 0:
                found[process] += (rows[-1].cpu_s - rows[0].cpu_s) / span_s * self.wall_s
        return found

    @property
    def cores(self) -> int:
        """Of the host with most."""
        hosts = self.run.manifest.section("hosts")
        counts = [facts.get("num_cores") for facts in hosts.values() if isinstance(facts, dict)]
        return max([int(count) for count in counts if isinstance(count, int)], default=1)

    @property
    def actors_per_host(self) -> int:
        """On the host with most actors; where each of them learns too, as many as that."""
        processes = self.run.manifest.section("processes")
        hosts: Counter[str] = Counter()
        for role, process in self.graph.process_of.items():
            placed = processes.get(process.name)
            if role.startswith("actor-") and isinstance(placed, dict):
                hosts[str(placed.get("host"))] += 1
        return max(hosts.values(), default=self.experiment.actors)


def _plays(roles: tuple[str, ...], kind: str) -> bool:
    return any(role.startswith(f"{kind}-") for role in roles)
