"""Networks whose Python code depends on values or on the number of rows are refused with one clear
error, whatever a tracer says; nothing that a tracer says reaches the user's terminal."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest
from torch import Tensor, nn

from engine.errors import RunFailedError
from engine.layers.trunks import TRUNKS, register_network
from tests.helpers.engine.exports import exported, lively
from tests.helpers.engine.trained_runs import spaces_experiment


class OfValues(nn.Module):
    """Another layer for observations with a positive sum."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 4), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) if float(x[:, 1].mean()) > 0 else self.other(x)


class OfRows(nn.Module):
    """Takes the number of rows as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).view(len(x), 4)


class OfShape(OfRows):
    """The same as it should be."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).view(x.shape[0], 4)


UNBOUNDED = "box without bounds"
KINDS = {"of-values": OfValues, "of-rows": OfRows, "of-shape": OfShape}


@pytest.fixture(params=["onnx", "torchscript"])
def format_name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    known = dict(TRUNKS)
    for place in ("trunks", "encoders"):
        monkeypatch.setattr(f"engine.layers.{place}.TRUNKS", known)

    def build(kind: type[nn.Module]) -> object:
        return lambda shape, spec: kind()

    for name, kind in KINDS.items():
        register_network(name, build(kind))  # type: ignore[arg-type]
    name = str(request.param)
    if name == "onnx":
        pytest.importorskip("onnxscript")
    return name


@pytest.mark.parametrize("network", ["of-values", "of-rows"])
def test_what_cannot_be_traced_is_one_error(network: str, format_name: str, tmp_path: Path) -> None:
    trained = lively(tmp_path, spaces_experiment(action=UNBOUNDED, network=f"name: {network}"))
    with pytest.raises(RunFailedError) as refused:
        exported(tmp_path, trained, format_name)
    assert len(refused.value.what) < 700
    assert "\x1b" not in refused.value.what
    assert "number of rows" in refused.value.fix


def test_what_can_be_traced_is(
    format_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = lively(tmp_path, spaces_experiment(action=UNBOUNDED, network="name: of-shape"))
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        assert exported(tmp_path, trained, format_name).agreement.sensitive == 0
    assert caplog.records == []
