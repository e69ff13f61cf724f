"""Writes a small run whose manifest, traces and summary agree; no process, no clock.

Two actors, one learner, a batch of two rollouts, lag 0 or 1. Nothing is random: the same arguments
write the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from engine.trace.records import (
    Consumption,
    Episode,
    Event,
    Ledger,
    Production,
    Record,
    Resources,
    Staleness,
    WeightsPublished,
    table_of,
)
from engine.trace.summary import Summary, steady_rate_per_s, summarise_lag
from tianji_cli.storage.run_dir import RunPaths

HOSTILE = "<script>alert('x')</script> & \"quoted\" </title>"
STEPS = 400
BATCHES = 120
UPDATE_S = 0.08
WINDOW = 100
MAX_RETURN = 500.0


@dataclass
class Trace:
    """Rows as they are written, and the counters that follow from them."""

    rows: list[Record] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    lag_steps: dict[int, int] = field(default_factory=dict)
    crossing: tuple[float, int] | None = None


def write_synthetic_run(
    root: Path,
    *,
    status: str = "ok",
    speed: float = 1.0,
    threshold: float | None = 450.0,
    num_batches: int = BATCHES,
    has_summary: bool = True,
) -> RunPaths:
    """Writes `manifest.json`, `trace/*.jsonl` and `summary.json` below `root`.

    `speed` scales time and learning; without a summary it looks like a killed controller's run.
    """
    paths = RunPaths(root)
    for directory in (paths.trace, paths.logs / "box<1>", paths.plots, paths.checkpoints):
        directory.mkdir(parents=True)
    (paths.logs / "box<1>" / "actor-0.log").write_text("ready\n", encoding="utf-8")
    paths.manifest.write_bytes(msgspec.json.encode(manifest_of(paths.run_id, threshold)))
    trace = make_trace(speed, threshold, num_batches)
    write_rows(paths.trace, trace.rows)
    if has_summary:
        summary = summary_of(paths.run_id, status, threshold, trace)
        paths.summary.write_bytes(msgspec.json.encode(summary))
    return paths


def write_rows(trace_dir: Path, rows: Sequence[Record]) -> None:
    """Appends each row to its table."""
    for row in rows:
        with (trace_dir / f"{table_of(type(row))}.jsonl").open("ab") as file:
            file.write(msgspec.json.encode(row) + b"\n")


def make_trace(speed: float, threshold: float | None, num_batches: int) -> Trace:
    """All rows of a run, in order of time."""
    trace = Trace()
    trace.rows.append(Event(t_s=0.0, kind="started", host="box<1>", role="actor-0", detail=HOSTILE))
    trace.rows.append(
        WeightsPublished(t_s=0.0, learner=0, version=0, num_bytes=4096, num_subscribers=2)
    )
    now_s = 0.0
    for batch in range(num_batches):
        now_s += UPDATE_S / speed * (1.0 + 0.3 * math.sin(batch / 9))
        _add_rollouts(trace, batch, now_s, speed, threshold)
        _add_update(trace, batch, now_s)
    _add_last_rollout(trace, num_batches, speed)
    return trace


def _add_rollouts(
    trace: Trace, batch: int, now_s: float, speed: float, threshold: float | None
) -> None:
    for actor in (0, 1):
        end_s = now_s - (0.04 - 0.01 * actor) / speed
        collected = (2 * batch + actor + 1) * STEPS
        version = max(0, batch - (actor + batch) % 2)
        trace.rows.append(
            Production(
                t_s=end_s,
                actor=actor,
                epoch=0,
                sequence=batch,
                env_steps=STEPS,
                env_steps_total=(batch + 1) * STEPS,
                version_min=version,
                version_max=version,
                collect_s=0.05 / speed,
                wait_s=0.01 / speed,
            )
        )
        for index in range(2):
            _add_episode(
                trace, actor, end_s, collected, 4 * batch + 2 * actor + index, threshold, speed
            )


def _add_episode(
    trace: Trace,
    actor: int,
    end_s: float,
    collected: int,
    number: int,
    threshold: float | None,
    speed: float,
) -> None:
    level = MAX_RETURN * (1.0 - math.exp(-number * (0.4 + 0.6 * speed) / 70.0))
    value = float(
        round(max(9.0, level * (1.0 + 0.25 * math.sin(number * 2.4) * math.exp(-number / 200))))
    )
    value = min(value, MAX_RETURN)
    row = Episode(
        t_s=end_s,
        actor=actor,
        episode_return=value,
        length_env_steps=int(value),
        version=number // 4,
        env_steps_collected=collected,
    )
    trace.rows.append(row)
    trace.returns.append(value)
    recent = trace.returns[-WINDOW:]
    is_above = threshold is not None and len(recent) == WINDOW and sum(recent) / WINDOW >= threshold
    if is_above and trace.crossing is None:
        trace.crossing = (end_s, collected)


def _add_update(trace: Trace, batch: int, now_s: float) -> None:
    lags = {0: STEPS, 1: STEPS} if batch else {0: 2 * STEPS}
    for lag, steps in lags.items():
        trace.lag_steps[lag] = trace.lag_steps.get(lag, 0) + steps
    consumed = 2 * STEPS * (batch + 1)
    trace.rows += [
        Consumption(
            t_s=now_s,
            learner=0,
            version=batch,
            env_steps=2 * STEPS,
            env_steps_total=consumed,
            samples_trained=8 * STEPS,
            samples_trained_total=4 * consumed,
            updates_total=16 * (batch + 1),
            wait_s=0.005,
            update_s=0.04,
            metrics={"loss": 1.0 / (batch + 1)},
        ),
        Staleness(
            t_s=now_s,
            learner=0,
            version=batch,
            env_steps=2 * STEPS,
            lag_min=min(lags),
            lag_mean=sum(lag * steps for lag, steps in lags.items()) / (2 * STEPS),
            lag_p95=float(max(lags)),
            lag_max=max(lags),
            steps_by_lag=lags,
            age_mean_s=0.035,
            age_max_s=0.04 + 0.01 * math.sin(batch / 5),
        ),
        WeightsPublished(
            t_s=now_s, learner=0, version=batch + 1, num_bytes=4096, num_subscribers=2
        ),
        Ledger(t_s=now_s, collected=consumed, consumed=consumed, dropped=0, in_flight=0),
    ]


def _add_last_rollout(trace: Trace, num_batches: int, speed: float) -> None:
    """What an actor was collecting when the run stopped stays in flight."""
    end_s = trace.rows[-1].t_s + 0.02 / speed
    consumed = 2 * STEPS * num_batches
    last = next(row for row in reversed(trace.rows) if isinstance(row, Production))
    trace.rows += [
        msgspec.structs.replace(
            last,
            t_s=end_s,
            sequence=last.sequence + 1,
            env_steps=96,
            env_steps_total=last.env_steps_total + 96,
            sent=False,
        ),
        Ledger(t_s=end_s, collected=consumed + 96, consumed=consumed, dropped=0, in_flight=96),
        Resources(
            t_s=end_s,
            host="box<1>",
            process="learner-0",
            pid=7,
            cpu_s=3.5,
            rss_bytes=2**28,
            num_threads=2,
        ),
    ]


def summary_of(run_id: str, status: str, threshold: float | None, trace: Trace) -> Summary:
    """The summary that agrees with the rows, computed the way a coordinator does: as they come."""
    collected = consumed = trained = 0
    points: dict[str, list[tuple[float, int]]] = {name: [] for name in ("p", "c", "t")}
    for row in trace.rows:
        if isinstance(row, Production):
            collected += row.env_steps
            points["p"].append((row.t_s, collected))
        elif isinstance(row, Consumption):
            consumed, trained = row.env_steps_total, row.samples_trained_total
            points["c"].append((row.t_s, consumed))
            points["t"].append((row.t_s, trained))
    collect_per_s, consume_per_s = steady_rate_per_s(points["p"]), steady_rate_per_s(points["c"])
    recent = trace.returns[-WINDOW:]
    return Summary(
        run_id=run_id,
        status=status,  # type: ignore[arg-type]
        error=None if status == "ok" else f"actor-1 on box<1> was killed by SIGKILL {HOSTILE}",
        stop_reason="return_threshold",
        algorithm="ppo",
        env_id="CartPole-v1",
        policy="tianji",
        seed=7,
        num_hosts=1,
        num_actors=2,
        num_groups=1,
        wall_s=12.5,
        env_steps_collected=collected,
        env_steps_consumed=consumed,
        env_steps_dropped=0,
        env_steps_in_flight=collected - consumed,
        samples_trained=trained,
        collect_per_s=collect_per_s,
        consume_per_s=consume_per_s,
        trained_per_s=steady_rate_per_s(points["t"]),
        updates=16 * consumed // (2 * STEPS),
        weights_version=consumed // (2 * STEPS),
        lag=summarise_lag(trace.lag_steps),
        balance=collect_per_s / consume_per_s if collect_per_s and consume_per_s else None,
        return_mean=sum(recent) / len(recent) if recent else None,
        episodes=len(trace.returns),
        threshold=threshold,
        reached=None if threshold is None else trace.crossing is not None,
        time_to_threshold_s=trace.crossing[0] if trace.crossing else None,
        steps_to_threshold=trace.crossing[1] if trace.crossing else None,
        restarts=0,
    )


def manifest_of(run_id: str, threshold: float | None) -> dict[str, object]:
    """A manifest with hostile text wherever a user or a host could have put it."""
    return {
        "schema_version": 1,
        "run_id": run_id,
        "argv": ["tianji", "up", "hosts.yaml", "--name", HOSTILE],
        "experiment": {
            "version": 1,
            "name": HOSTILE,
            "seed": 7,
            "env": {"id": "CartPole-v1", "num_envs": 8},
            "algorithm": {"name": "ppo"},
            "policy": "tianji",
            "actors": 2,
            "staleness": {"mode": "block", "max_lag": 1},
            "stop": {"return_threshold": threshold, "return_window": WINDOW},
        },
        "inventory": {"version": 1, "hosts": {"box<1>": {}}},
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "versions": {"python": "3.11.9", "tianji": "0.1.0", "protocol": "1", "torch": "2.8.0"},
        "hosts": {
            "box<1>": {
                "hostname": "box1.example",
                "os": "Linux 6.1",
                "cpu_model": HOSTILE,
                "num_cores": 8,
                "memory_bytes": 34359738368,
                "gpus": ["GPU 0: Example 80GB"],
                "versions": {"python": "3.11.9", "tianji": "0.1.0", "torch": "2.8.0"},
            }
        },
        "seeds": [7],
        "started_at": "2026-01-31T23:59:59Z",
        "clock_offsets_s": {"box<1>": 0.0},
    }
