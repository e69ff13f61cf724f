"""Staging and publishing wait for exactly what they must, shown by a device that is late."""

from __future__ import annotations

import numpy as np
import torch

from engine.devices.cpu import CpuDevice
from engine.devices.pinned_fields import PinnedFields
from engine.devices.publishing import Publisher
from engine.devices.staging import AheadStaging
from engine.rollout import Arrays, Field, Layout
from tests.helpers.engine.lazy_device import LazyDevice

LAYOUT = Layout(
    (Field("reward", "float32"), Field("key", "int64"), Field("done", "bool", (3,), 1)), 2, 4
)


class Numbered:
    """A batch of one number."""

    def __init__(self, number: int) -> None:
        self.number = number


def pack(arrays: Arrays, batch: Numbered) -> None:
    for array in arrays.values():
        array[...] = batch.number


def staging_on(device) -> AheadStaging[Numbered]:
    return AheadStaging(device, LAYOUT, pack, bookkeeping=("key",))


def test_a_batch_has_its_fields_and_keeps_its_books_in_main_memory():
    staging = staging_on(CpuDevice())
    batch = staging.fill(Numbered(7))
    for item in LAYOUT.fields:
        assert batch[item.name].shape == LAYOUT.shape(item)
        assert batch[item.name].dtype == getattr(torch, item.dtype)
    assert (batch["reward"] == 7).all()
    assert batch["done"].all()
    place = staging._places[0].mirror
    assert batch["key"].data_ptr() == place.host_tensors["key"].data_ptr()
    assert batch["reward"].data_ptr() == place.tensors["reward"].data_ptr()


def test_an_update_waits_for_the_copy_of_its_batch_and_for_nothing_else():
    device = LazyDevice()
    staging = staging_on(device)
    device.log.clear()
    assert (staging.fill(Numbered(1))["reward"] == 1).all(), "though copies are late"
    assert device.log == [
        ("copy", "side-0"),
        ("record", "side-0"),
        ("after", "main", "side-0"),
    ]


def test_the_next_batch_is_copied_while_one_is_trained_and_found_there():
    device = LazyDevice()
    staging = staging_on(device)
    now, then = staging.fill(Numbered(1)), Numbered(2)
    device.log.clear()
    staging.stage(then)
    assert device.log == [("copy", "side-0"), ("record", "side-0")], "no thread waits"
    assert (now["reward"] == 1).all()
    device.let_run()
    assert (now["reward"] == 1).all(), "it has a place of its own"
    assert (staging.fill(then)["reward"] == 2).all()
    assert device.log.count(("copy", "side-0")) == 1


def test_a_place_is_overwritten_only_behind_the_update_that_reads_it():
    device = LazyDevice()
    staging = staging_on(device)
    staging.fill(Numbered(1))
    staging.fill(Numbered(2))
    device.log.clear()
    staging.stage(Numbered(3))
    assert device.log == [
        ("block", "side-0"),  # until pinned memory was copied, long ago
        ("after", "side-0", "main"),
        ("copy", "side-0"),
        ("record", "side-0"),
    ]


def test_a_batch_that_was_staged_in_vain_is_forgotten():
    device = LazyDevice()
    staging = staging_on(device)
    staging.fill(Numbered(1))
    staging.stage(Numbered(2))
    assert [int(staging.fill(Numbered(n))["reward"][0, 0]) for n in (3, 4, 5)] == [3, 4, 5]


def test_many_batches_in_turn_each_arrive_whole():
    device = LazyDevice()
    staging, ahead = staging_on(device), Numbered(0)
    for number in range(1, 9):
        batch = staging.fill(ahead)
        ahead = Numbered(number)
        staging.stage(ahead)
        if number % 3 == 0:
            device.let_run()
        assert (batch["reward"] == number - 1).all()
        assert (batch["key"] == number - 1).all()


def test_publishing_never_blocks_and_sends_the_weights_of_its_own_moment():
    device = LazyDevice()
    publisher, vector = Publisher(device, 3), torch.ones(3)
    device.log.clear()
    publisher.publish(5, vector)
    vector.fill_(2.0)  # the next update has begun
    assert not any(kind == "block" for kind, *_ in device.log)
    assert device.log == [
        ("record", "main"),
        ("after", "side-0", "main"),
        ("copy", "side-0"),
        ("record", "side-0"),
    ]
    assert publisher.take() is None
    assert publisher.is_busy
    device.let_run()
    weights = publisher.take()
    assert weights is not None
    assert weights.version == 5
    np.testing.assert_array_equal(weights.buffer.view(np.float32), np.ones(3))
    assert not publisher.is_busy
    assert publisher.take() is None


def test_weights_that_were_sent_do_not_change_with_those_after_them():
    publisher, vector = Publisher(CpuDevice(), 3), torch.ones(3)
    taken = []
    for version in range(4):
        publisher.publish(version, vector * version)
        taken.append(publisher.take())
    values = [float(weights.buffer.view(np.float32)[0]) for weights in taken]
    assert values == [0.0, 1.0, 2.0, 3.0]


def test_of_three_that_nobody_took_the_two_newest_are_left():
    device = LazyDevice()
    publisher = Publisher(device, 1)
    for version in (1, 2, 3):
        publisher.publish(version, torch.full((1,), float(version)))
    publisher.wait()
    taken = [publisher.take(), publisher.take()]
    assert [weights.version for weights in taken] == [2, 3]
    assert [float(weights.buffer.view(np.float32)[0]) for weights in taken] == [2.0, 3.0]


def test_a_mirror_crosses_in_one_copy_each_way():
    device = LazyDevice()
    mirror = PinnedFields(device, LAYOUT)
    pack(mirror.arrays, Numbered(3))
    mirror.send()
    assert (mirror.tensors["key"] == 3).all()
    mirror.tensors["key"].fill_(4)
    mirror.fetch()
    assert (mirror.arrays["key"] == 4).all()
    assert device.log == [("copy", "main"), ("copy", "main")]
