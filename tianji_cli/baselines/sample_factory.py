"""Sample Factory's asynchronous PPO, in a virtual environment of its own."""

from __future__ import annotations

from tianji_cli.baselines.base import (
    DriverPeer,
    Installed,
    ParityRow,
    PeerOptions,
    parity_rows,
    venv_python,
)
from tianji_cli.baselines.probe import probe
from tianji_cli.bench.suite import Task

VERSION = "2.1.1"


class SampleFactory(DriverPeer):
    """`APPO`; rollout workers are its workers, inference has a process of its own."""

    name = "sample-factory"
    title = "Sample Factory"
    driver = "sample_factory_appo.py"
    caveats = (
        "Sample Factory runs under Gymnasium 0.29, the newest that it supports; the dynamics of"
        " the classic environments are the same.",
        "Sample Factory acts for its workers in one process more than others have.",
    )

    def prepare(self, options: PeerOptions) -> Installed:
        return probe(
            venv_python(options.peers_dir, self.name),
            ["sample_factory", "torch", "gymnasium"],
            peer=self.title,
            fix="tianji bench --install sample-factory, or leave it out with --skip-missing",
        )

    def parity(self, task: Task) -> list[ParityRow]:
        return parity_rows(
            task,
            self.name,
            extra=(
                ("advantage normalisation", "per minibatch", "equal", ""),
                ("value loss clipping", "off", "equal", "off; 1.0 by default"),
                ("bootstrap at truncation", "on", "equal", "value_bootstrap"),
                ("seed", "the block's", "equal", ""),
            ),
        )
