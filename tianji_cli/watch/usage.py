"""What processes and hosts of a run use (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.trace.records import Resources
from tianji_cli.analysis.run import ManifestView
from tianji_cli.watch.roles import ProcessInfo, State, shown, state_of_several
from tianji_cli.watch.views import HostView, ProcessView

MAX_MEASURED = 4096
MAX_GPUS = 16
MAX_SHOWN = 300
"""Processes and hosts that the page gets one by one."""
FRESH_S = 10.0
"""What was measured before is left out of the sums of a host: supervisors measure every 2 s."""


class RunUsage:
    """The last measurements of each process.

    Args:
        manifest: Of the run: what its hosts have.
    """

    def __init__(self, manifest: ManifestView) -> None:
        self._hosts = {shown(name): facts for name, facts in manifest.section("hosts").items()}
        self._last: dict[str, Resources] = {}
        self._cores: dict[str, float] = {}

    def take(self, row: Resources) -> None:
        """Takes a measurement in."""
        before = self._last.get(row.process)
        if before is None and len(self._last) >= MAX_MEASURED:
            return
        if before is not None and before.pid == row.pid and row.t_s > before.t_s:
            self._cores[row.process] = (row.cpu_s - before.cpu_s) / (row.t_s - before.t_s)
        self._last[row.process] = row

    def processes(
        self, known: Sequence[ProcessInfo], states: Mapping[str, State], now_s: float
    ) -> list[ProcessView]:
        """All processes of the manifest, then others that were measured, as supervisors are."""
        named = {process.name for process in known}
        others = [
            ProcessInfo(shown(row.process), shown(row.host), ())
            for row in self._last.values()
            if row.process not in named
        ]
        return [self._row(process, states, now_s) for process in (*known, *others)]

    def _row(self, info: ProcessInfo, states: Mapping[str, State], now_s: float) -> ProcessView:
        row = self._last.get(info.name)
        state = state_of_several(states, info.roles) if info.roles else ""
        is_up = state != "gone"
        return ProcessView(
            process=info.name,
            host=info.host,
            roles=list(info.roles),
            state=state,
            device=info.device,
            cores=self._cores.get(info.name) if is_up else None,
            rss_bytes=float(row.rss_bytes) if row and is_up else None,
            threads=row.num_threads if row and is_up else None,
            age_s=max(0.0, now_s - row.t_s) if row else None,
        )

    def hosts(self, processes: Sequence[ProcessView]) -> list[HostView]:
        """The hosts of the run, the coordinator's first, with what their processes use."""
        here: dict[str, list[ProcessView]] = {}
        for row in processes:
            here.setdefault(row.host, []).append(row)
        for name in self._hosts:
            here.setdefault(name, [])
        return [self._host(name, rows) for name, rows in list(here.items())[:MAX_SHOWN]]

    def _host(self, name: str, here: Sequence[ProcessView]) -> HostView:
        facts = ManifestView(self._hosts).section(name)
        view, gpus = ManifestView(facts), facts.get("gpus")
        fresh = [row for row in here if row.age_s is not None and row.age_s <= FRESH_S]
        cores = [row.cores for row in fresh if row.cores is not None]
        sizes = [row.rss_bytes for row in fresh if row.rss_bytes is not None]
        return HostView(
            host=name,
            cpu_model=shown(view.text("cpu_model")),
            num_cores=view.number("num_cores"),
            memory_bytes=view.number("memory_bytes"),
            gpus=[shown(str(gpu)) for gpu in gpus[:MAX_GPUS]] if isinstance(gpus, list) else [],
            cores=sum(cores) if cores else None,
            rss_bytes=sum(sizes) if sizes else None,
            processes=len(here),
        )
