"""All systems, by the name that suites and the command line use."""

from __future__ import annotations

from tianji_cli.baselines.base import Peer
from tianji_cli.baselines.rllib import Rllib
from tianji_cli.baselines.sample_factory import SampleFactory
from tianji_cli.baselines.single_process import SingleProcess
from tianji_cli.baselines.tianji import Tianji
from tianji_cli.baselines.xingtian import Xingtian

_ALL: tuple[Peer, ...] = (Tianji(), SingleProcess(), Rllib(), SampleFactory(), Xingtian())
PEERS_BY_NAME: dict[str, Peer] = {peer.name: peer for peer in _ALL}
