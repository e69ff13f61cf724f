"""All systems, by their names in suites and on the command line."""

from __future__ import annotations

from tianji_cli.bench.systems.base import Peer
from tianji_cli.bench.systems.rllib import Rllib
from tianji_cli.bench.systems.sample_factory import SampleFactory
from tianji_cli.bench.systems.single_process import SingleProcess
from tianji_cli.bench.systems.tianji import Tianji
from tianji_cli.bench.systems.xingtian import Xingtian

_ALL: tuple[Peer, ...] = (Tianji(), SingleProcess(), Rllib(), SampleFactory(), Xingtian())
PEERS_BY_NAME: dict[str, Peer] = {peer.name: peer for peer in _ALL}
