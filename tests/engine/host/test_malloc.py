"""Freed memory is kept, so that blocks as large as a batch of images cost no page faults; and what
stays is not looked through for garbage."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from engine.host.malloc import keep_what_is_there, reading_libraries
from engine.host.tether import tethered
from engine.search_path import OWN_ROOT

PROGRAM = """
import resource, sys
from engine.host.malloc import keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(5)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def use():
    block = bytearray(64 * 2**20)
    block[::4096] = b"1" * (len(block) // 4096)

use()
before = faults()
for _ in range(4):
    use()
print(faults() - before)
"""


def _faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=False
    )
    if done.returncode == 5:
        pytest.skip("this C library has no mallopt")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_large_blocks_are_used_again() -> None:
    pages_of_a_block = 64 * 2**20 // 4096
    assert _faults("as it was") > pages_of_a_block, "nothing to be gained here"
    assert _faults("keep") < pages_of_a_block // 100


class Node:
    """One that holds itself, as only the collector can end."""

    def __init__(self) -> None:
        self.own = self


def test_what_was_read_is_not_looked_through_again() -> None:
    with reading_libraries():
        assert not gc.isenabled()
        read = [Node() for _ in range(10)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > len(read)
    looked_through = {id(each) for each in gc.get_objects()}
    assert not looked_through & {id(node) for node in read}
    dropped = weakref.ref(Node())
    gc.collect()
    assert dropped() is None, "what came later is collected as ever"


def test_a_library_that_cannot_be_read_leaves_the_collector_on() -> None:
    before = gc.get_freeze_count()
    with pytest.raises(ImportError), reading_libraries():
        raise ImportError("no such library")
    assert gc.isenabled()
    assert gc.get_freeze_count() == before


def test_what_was_dropped_before_is_not_kept() -> None:
    dropped = weakref.ref(Node())
    keep_what_is_there()
    assert dropped() is None
    assert gc.get_freeze_count() > 0


def test_a_tethered_module_works_with_a_collector_and_frozen_libraries(tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text(
        "import gc, sys\n"
        "while_read = gc.isenabled()\n"
        "def main():\n"
        "    print(while_read, gc.isenabled(), gc.get_freeze_count() > 1000, sys.argv)\n"
    )
    command = tethered("told", "word")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), OWN_ROOT))}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "False True True ['told', 'word']\n"
