"""Freed memory is kept, so that blocks as large as a batch of images cost no page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from engine.runtime.heap import keep_freed_memory

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
