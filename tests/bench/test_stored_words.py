"""Files keep the words of the first results: `peer` and `peers` are what the code calls systems."""

from __future__ import annotations

import msgspec

from tests.helpers.bench.bench_fakes import make_task
from tianji_cli.bench.comparison.compare import SystemSummary, TaskComparison
from tianji_cli.bench.comparison.results import BenchManifest, Cell
from tianji_cli.bench.systems.base import Job
from tianji_cli.bench.tasks.suite import Task


def test_a_cell_of_earlier_results_is_read_and_written_alike():
    stored = b'{"task":"ppo","peer":"rllib","seed":2}'
    cell = msgspec.json.decode(stored, type=Cell)
    assert (cell.system, cell.name) == ("rllib", "ppo/rllib-seed2")
    assert msgspec.json.encode(cell) == stored


def test_only_stored_keys_say_peer():
    for struct in (Cell, Job, SystemSummary, BenchManifest, Task, TaskComparison):
        renamed = {f.name: f.encode_name for f in msgspec.structs.fields(struct)}
        renamed = {name: key for name, key in renamed.items() if name != key}
        assert renamed in ({"system": "peer"}, {"systems": "peers"}), struct
    assert set(msgspec.to_builtins(make_task(["tianji"]))["peers"]) == {"tianji"}
