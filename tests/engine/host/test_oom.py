"""A role that the kernel killed for lack of memory is told apart from one that somebody killed."""

from __future__ import annotations

from pathlib import Path

from engine.host.process import describe_returncode
from engine.host.usage import KILLED, MemoryWatch, count_oom_kills
from engine.trace.records import Resources

MIB = 2**20


class Counter:
    """The kernel's counter, set by the test."""

    value: int | None = 3

    def __call__(self) -> int | None:
        return self.value


def row(mib: int) -> Resources:
    return Resources(
        t_s=0.0, host="box", process="actor-0", pid=1, cpu_s=0.0, rss_bytes=mib * MIB, num_threads=1
    )


def test_a_kill_that_the_counter_knows_is_out_of_memory():
    counter = Counter()
    watch = MemoryWatch(counter)
    for mib in (100, 200, 400):
        watch.note([row(mib)])
    counter.value = 4
    assert watch.explain("actor-0", KILLED) == (
        "was killed by SIGKILL, out of memory by the kernel's count of such kills;"
        " it used 100, 200, 400 MiB in the last samples"
    )


def test_a_sample_between_the_kill_and_the_word_of_it_changes_nothing():
    counter = Counter()
    watch = MemoryWatch(counter)
    watch.note([row(100)])
    counter.value = 4
    watch.note([])
    assert "out of memory" in watch.explain("actor-0", KILLED)


def test_an_earlier_kill_of_something_else_is_not_its_cause():
    counter = Counter()
    watch = MemoryWatch(counter)
    counter.value = 4
    watch.note([row(100)])
    watch.note([row(100)])
    assert watch.explain("actor-0", KILLED) == KILLED


def test_other_ends_are_left_as_they_are():
    counter = Counter()
    watch = MemoryWatch(counter)
    counter.value = 4
    assert watch.explain("actor-0", "ended with code 1") == "ended with code 1"
    assert watch.explain("actor-0", "was killed by SIGSEGV") == "was killed by SIGSEGV"


def test_where_the_kernel_does_not_count_both_are_possible():
    counter = Counter()
    counter.value = None
    watch = MemoryWatch(counter)
    assert watch.explain("actor-0", KILLED).endswith("the kernel does this when memory runs out")


def test_only_the_last_samples_are_kept_and_none_of_an_earlier_life():
    counter = Counter()
    watch = MemoryWatch(counter)
    for mib in range(1, 9):
        watch.note([row(mib)])
    counter.value = 4
    assert "used 4, 5, 6, 7, 8 MiB" in watch.explain("actor-0", KILLED)
    assert "MiB" not in watch.explain("actor-0", KILLED)


def test_the_counter_is_read_where_the_kernel_has_one(tmp_path: Path):
    file = tmp_path / "vmstat"
    assert count_oom_kills(file) is None
    file.write_text("nr_free_pages 5\noom_kill 17\nnuma_hit 3\n")
    assert count_oom_kills(file) == 17
    file.write_text("nr_free_pages 5\n")
    assert count_oom_kills(file) is None


def test_the_words_are_those_of_a_kill():
    assert describe_returncode(-9) == KILLED
