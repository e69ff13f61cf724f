"""Which GPUs a run may use, without waking CUDA."""

from __future__ import annotations

import pytest
import torch

from engine.devices.cpu import CpuDevice
from engine.devices.opening import open_device
from engine.devices.visible import PRETENDED, VISIBLE, find_devices, selected_gpus, visible_gpus
from engine.errors import PreflightError


def test_the_gpus_that_pytorch_finds_unless_the_inventory_gives_none(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert find_devices() == find_devices(()) == ()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_devices((4, 5)) == find_devices(None) == ("cuda:0", "cuda:1")
    assert find_devices(()) == ()


def test_tests_can_pretend_devices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(PRETENDED, "cpu:0,cpu:1")
    assert find_devices() == ("cpu:0", "cpu:1")
    assert find_devices(()) == ()
    opened = open_device("cpu:1")
    assert isinstance(opened, CpuDevice)
    assert open_device("cpu") is None


@pytest.mark.parametrize(
    ("gpus", "given", "wanted"),
    [
        (None, None, {}),
        (None, "3", {}),
        ((), None, {VISIBLE: ""}),
        ((0, 2), None, {VISIBLE: "0,2"}),
        ((0, 1), "4, 6,7", {VISIBLE: "4,6"}),
        ((1,), "GPU-aa,MIG-bb", {VISIBLE: "MIG-bb"}),
        ((), "4,6", {VISIBLE: ""}),
    ],
)
def test_numbers_of_the_inventory_count_what_a_manager_has_left(gpus, given, wanted):
    environment = {} if given is None else {VISIBLE: given}
    assert selected_gpus(gpus, environment) == wanted


def test_a_number_beyond_what_a_manager_has_left_is_refused():
    with pytest.raises(PreflightError, match=r"GPU 2 .* which are 2 \(CUDA_VISIBLE_DEVICES=4,6\)"):
        selected_gpus((0, 2), {VISIBLE: "4,6"})


def test_gpus_are_named_without_waking_cuda(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(VISIBLE, raising=False)
    assert visible_gpus(["a", "b", "c"]) == ["a", "b", "c"]
    monkeypatch.setenv(VISIBLE, "2,0,7")
    assert visible_gpus(["a", "b", "c"]) == ["c", "a"]
