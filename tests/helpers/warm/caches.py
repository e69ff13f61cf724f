"""What all workers of a suite would compute at once in a new checkout is written before them.

pytest keeps modules whose assertions it has rewritten, and Hypothesis the constants it has found in
modules. The first to need them writes them; workers begin together, so all of them would.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from _pytest.assertion.rewrite import (
    PYC_TAIL,
    _read_pyc,
    _rewrite_test,
    _write_pyc,
    get_cache_dir,
    try_makedirs,
)

from engine.host.cores import allowed_cores
from tests.helpers.warm.libraries import become_kind_of
from tests.helpers.warm.start import ROOT, Start


def fill_caches(tests: Sequence[str], worker: Start) -> None:
    """Uses all cores, as nothing else has begun.

    Args:
        tests: Files and directories, from the root of this checkout.
        worker: One of those that will run them.
    """
    files = [path for path in _test_files(tests) if not is_rewritten(path)]
    if not files or sys.dont_write_bytecode:
        return
    num_parts = len(allowed_cores())
    parts = [files[part::num_parts] for part in range(num_parts)]
    children = [_fork(partial(_find_constants, worker))]
    children += [_fork(partial(_rewrite_all, part)) for part in parts]
    for child in children:
        os.waitpid(child, 0)


def _test_files(paths: Sequence[str]) -> Iterator[Path]:
    for path in map(ROOT.joinpath, paths):
        yield from sorted(path.rglob("test_*.py")) if path.is_dir() else [path]


def _kept(path: Path) -> Path:
    return get_cache_dir(path) / (path.stem + PYC_TAIL)


def is_rewritten(path: Path) -> bool:
    return _read_pyc(path, _kept(path)) is not None


def _rewrite_all(files: Sequence[Path]) -> None:
    for path in files:
        try:
            source_hash, code = _rewrite_test(path, None)  # type: ignore[arg-type]
        except SyntaxError:
            continue
        if try_makedirs(get_cache_dir(path)):
            says_nothing = SimpleNamespace(trace=lambda _: None)
            _write_pyc(says_nothing, code, source_hash, _kept(path))  # type: ignore[arg-type]


def _find_constants(worker: Start) -> None:
    from hypothesis.internal.conjecture.providers import _get_local_constants

    become_kind_of(worker)
    os.chdir(worker.cwd)
    _get_local_constants()


def _fork(act: Callable[[], None]) -> int:
    """What the child does not do is left to the workers, who report what is wrong."""
    child = os.fork()
    if child == 0:
        try:
            act()
        finally:
            os._exit(0)
    return child
