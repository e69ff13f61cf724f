"""Detached runs that an earlier release began: their hosts have its sources, not this program's."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError
from engine.supervision.run_inspector import Findings
from tianji_cli.connectors.local import LocalNode
from tianji_cli.runs.host_control import end_part, look_at_part
from tianji_cli.storage.consent import Consent
from tianji_cli.storage.deployment import (
    FORMER_INSPECTOR,
    INSPECTOR,
    Deployment,
    note_ended,
    read_deployment,
)

RECORDED = Path(__file__).with_name("recorded") / "deployment-0.json"
"""As releases wrote it that recorded no module to ask with."""
AGREED = Consent(is_given=True)
FORMER = """
import json, sys
from engine import RELEASE
print(json.dumps({"state": None, "alive": [], "marked": [], "is_supervised": RELEASE == "former"}))
"""


class FarHost(LocalNode):
    """This machine as one that has sources of its own."""

    def __init__(self) -> None:
        super().__init__("box1")
        self.is_remote = True


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The directory of a run whose host has a former release's sources."""
    source = tmp_path / "bundles" / "former"
    (source / "engine" / "runtime").mkdir(parents=True)
    (source / "engine" / "__init__.py").write_text('RELEASE = "former"\n')
    (source / "engine" / "runtime" / "__init__.py").touch()
    (source / "engine" / "runtime" / "inspect.py").write_text(FORMER)
    text = RECORDED.read_text().replace("SOURCE", str(source))
    root = tmp_path / "cartpole-ppo-1"
    root.mkdir()
    (root / "deployment.json").write_text(text)
    return root


def test_a_former_releases_run_is_asked_and_ended_with_its_own_sources(run: Path) -> None:
    deployment = read_deployment(run, AGREED)
    part = msgspec.structs.replace(deployment.parts[0], python=sys.executable)
    found = look_at_part(FarHost(), part, deployment.run_id)
    assert found == Findings(state=None, alive=[], marked=[], is_supervised=True)
    assert end_part(FarHost(), part, deployment.run_id, 1.0) == found


def test_a_former_releases_run_stays_ones_own_when_its_end_is_noted(run: Path) -> None:
    note_ended(run, read_deployment(run, AGREED))
    assert read_deployment(run).has_ended, "nobody is asked again"


def test_what_this_release_records_is_there_to_be_run() -> None:
    assert find_spec(INSPECTOR) is not None
    assert FORMER_INSPECTOR == "engine." + "runtime.inspect", "what is written in old files' place"


@pytest.mark.parametrize(
    "module", ["os", "-c", "engine", "engine.x y", "engine..x", "engine.x;id", ""]
)
def test_a_file_cannot_name_another_module(run: Path, module: str) -> None:
    path = run / "deployment.json"
    deployment = msgspec.json.decode(path.read_bytes(), type=Deployment)
    part = msgspec.structs.replace(deployment.parts[0], inspector=module)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(deployment, parts=(part,))))
    with pytest.raises(ConfigError, match="no module of TianJi"):
        read_deployment(run, AGREED)
