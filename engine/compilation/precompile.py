"""Compiles the functions that a run of an experiment will use, and waits for them.

`engine.compilation.precompile EXPERIMENT.json`, by `engine.host.tether`

A run never waits for its compiler; to measure runs of seconds, compile before. Prints one line per
function with its outcome, and exits with code 0 even if nothing can be compiled: then runs are
eager.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from engine.blueprint import make_blueprint
from engine.compilation.compile_job import NAMES, CompileJob
from engine.compilation.traces import kinds_of
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.spec import Experiment


def precompile(experiment: Experiment) -> list[str]:
    """Compiles the functions that are not in the cache, one after the other.

    Returns:
        The outcome of each function, one line each.
    """
    cut = build_graph(read_policy(experiment.policy), experiment).cut
    blueprint = make_blueprint(experiment, cut if cut.is_on_device else None, rehearses=True)
    outcomes = []
    for kind in kinds_of(blueprint):
        job = CompileJob(blueprint, kind)
        try:
            job.wait()
        finally:
            job.close()
        outcomes.append(f"{NAMES[kind]} {job.outcome}")
    return outcomes


def main() -> None:
    """See the module's first lines."""
    experiment = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Experiment)
    for line in precompile(experiment):
        print(line, flush=True)


if __name__ == "__main__":
    main()
