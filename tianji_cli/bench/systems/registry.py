"""All systems, by their names in suites and on the command line."""

from __future__ import annotations

from tianji_cli.bench.systems.base import System
from tianji_cli.bench.systems.compiled_loop import CompiledLoop
from tianji_cli.bench.systems.other_tianji import OtherTianji
from tianji_cli.bench.systems.rejax import Rejax
from tianji_cli.bench.systems.rllib import Rllib
from tianji_cli.bench.systems.sample_factory import SampleFactory
from tianji_cli.bench.systems.sb3 import Sb3
from tianji_cli.bench.systems.single_process import SingleProcess
from tianji_cli.bench.systems.tianji import Tianji
from tianji_cli.bench.systems.xingtian import Xingtian

_ALL: tuple[System, ...] = (
    Tianji(),
    SingleProcess(),
    CompiledLoop(),
    Rllib(),
    SampleFactory(),
    Xingtian(),
    Sb3(),
    Rejax(),
    OtherTianji(),
)
SYSTEMS_BY_NAME: dict[str, System] = {system.name: system for system in _ALL}
