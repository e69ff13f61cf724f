"""Compiled functions: shared libraries in a cache, each beside a signature of its arguments.

A library contains one function with fixed shapes. A caller compares the signature first and runs
other calls in eager mode, so a library can be unsuitable but never wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import msgspec
import torch
from torch import Tensor

from engine.algorithms import gradient
from engine.blueprint import Blueprint
from engine.compilation.native.function import NativeFunction
from engine.compilation.scanning import Scanner
from engine.files import write_durably
from engine.host import host_code
from engine.host.account import cache_directory
from engine.host.cores import processor_features
from engine.host.cpp_compiler import compiler_identity
from engine.spaces.leaves import identity_of

MAKERS = (
    *("policy_inference", "compiled", "compiler", "staging", "tracing"),
    *("collecting", "prepared", "scanning", "traces", "native_calls"),
    *("products", "product_kernel", "product_lowering"),
)
"""Modules beside this one that determine what a library computes and how it is called."""

Kind: TypeAlias = Literal["steps", "act", "collect", "prepare"]
"""The kind of compiled function: a learner's optimiser step, an actor's choice of actions, with
environments of tensors both this and their step, or what a learner computes before its steps."""


class TensorSignature(msgspec.Struct, frozen=True):
    """Signature of one argument."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, tensor: Tensor) -> TensorSignature:
        return cls(tuple(tensor.shape), tensor.stride(), str(tensor.dtype))


Signature: TypeAlias = dict[str, TensorSignature]


def describe(tensors: Mapping[str, Tensor]) -> Signature:
    """The signature of a call with these tensors."""
    return {name: TensorSignature.of(tensor) for name, tensor in tensors.items()}


class DamagedError(Exception):
    """The cached file is damaged, since a disk was full or power was lost, or another user's."""


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """The file beside a library, written after it: its signature, size and checksum, and one line
    about what its matrix products are computed by."""

    signature: Signature
    products: str
    num_bytes: int
    sha256: str


def put_library(made: Path, signature: Signature, library: Path, products: str = "") -> None:
    """Moves a library to its place atomically: it is there completely or not at all.

    Args:
        made: On the same disk.
        signature: What it may be called with.
        library: Its place.
        products: One line about its matrix products.

    Raises:
        OSError: The disk is full or not writable.
    """
    with made.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = made.stat().st_size
    seal = Seal(signature=signature, products=products, num_bytes=size, sha256=digest)
    signature_path(library).unlink(missing_ok=True)  # of a damaged one
    made.replace(library)
    write_durably(signature_path(library), msgspec.json.encode(seal))


def discard_library(library: Path) -> None:
    """Removes a damaged library; only the holder of its lock may call this."""
    signature_path(library).unlink(missing_ok=True)
    library.unlink(missing_ok=True)


def _check_sealed(library: Path) -> Seal:
    """The seal of a library whose size and checksum match.

    A damaged one must not reach the dynamic linker, which would map it and crash with a bus error.
    """
    try:
        seal = msgspec.json.decode(signature_path(library).read_bytes(), type=Seal)
        found = library.stat()
        if found.st_uid != os.getuid():
            raise DamagedError("it belongs to another user")
        if found.st_size != seal.num_bytes:
            raise DamagedError("its size does not match")
        with library.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != seal.sha256:
                raise DamagedError("its checksum does not match")
    except (msgspec.MsgspecError, UnicodeDecodeError, FileNotFoundError) as error:
        raise DamagedError(str(error)) from error
    return seal


class Library:
    """A compiled function.

    Args:
        path: Path given to `put_library`.

    Attributes:
        signature: What it may be called with.
        products: One line about its matrix products.
        function: Calls it.

    Raises:
        DamagedError: There is no such library, or it is damaged.
        OSError: It cannot be read.
        RuntimeError: It does not fit this machine or this PyTorch.
    """

    def __init__(self, path: Path) -> None:
        seal = _check_sealed(path)
        self.signature, self.products = seal.signature, seal.products
        self.function = function_of(path)

    def calls(self, fixed: Sequence[Tensor], rows: Sequence[Tensor]) -> Callable[[], None]:
        """What calls it with the first of some rows, then with the next, and so on; they must match
        its signature, as for `scan`."""
        return self.function.calls(fixed, rows)

    def scan(self, fixed: Sequence[Tensor], rows: Sequence[Tensor]) -> None:
        """Calls it for each of some rows; see `engine.compilation.scanning`."""
        self.function.scan(fixed, rows)


class Function(Protocol):
    """A function in a library."""

    def call(self, arguments: Sequence[Tensor]) -> None: ...

    def calls(self, fixed: Sequence[Tensor], rows: Sequence[Tensor]) -> Callable[[], None]: ...

    def scan(self, fixed: Sequence[Tensor], rows: Sequence[Tensor]) -> None: ...


def function_of(path: Path) -> Function:
    """That of a library of either kind.

    Raises:
        OSError, RuntimeError: It cannot be loaded.
    """
    try:
        return NativeFunction(path)
    except AttributeError:
        return PyTorchFunction(path)


class PyTorchFunction:
    """A function that was compiled by PyTorch.

    Args:
        path: Of its library.

    Attributes:
        scanner: Calls it several times; None if it was linked by a PyTorch that is too old for it.

    Raises:
        OSError, RuntimeError: It cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        self._runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1)
        self.scanner: Scanner | None = None
        with contextlib.suppress(AttributeError):
            self.scanner = Scanner(path)

    def call(self, arguments: Sequence[Tensor]) -> None:
        """Calls it once."""
        self._runner.run(list(arguments))

    def calls(self, fixed: Sequence[Tensor], rows: Sequence[Tensor]) -> Callable[[], None]:
        """What calls it with the first of some rows, then with the next."""
        left = zip(*(each.unbind() for each in rows), strict=True)
        return lambda: self.call([*fixed, *next(left)])

    def scan(self, fixed: Sequence[Tensor], rows: Sequence[Tensor]) -> None:
        """Calls it for each of some rows."""
        if self.scanner is not None:
            self.scanner.scan(fixed, rows)
            return
        for row in zip(*(each.unbind() for each in rows), strict=True):
            self.call([*fixed, *row])


def signature_path(library: Path) -> Path:
    """Path of the signature of a library. It is written last, so it marks a complete library."""
    return library.with_suffix(".json")


def library_path(blueprint: Blueprint, kind: Kind) -> Path:
    """The library for this experiment, and for all that differ only in values that it does not
    read, on this machine, with this PyTorch, C++ compiler and source code."""
    experiment, request = blueprint.experiment, blueprint.algorithm.samples()
    is_learner = kind in ("steps", "prepare")
    unread = {
        "steps": request.unread_by_step,
        "prepare": request.unread_by_preparing or (),
    }.get(kind, request.unread_by_act)
    described = msgspec.json.encode(
        (
            {name: value for name, value in experiment.algorithm.items() if name not in unread},
            experiment.network,
            experiment.named_modules,
            identity_of(blueprint.spaces.observation, "observation"),
            identity_of(blueprint.spaces.action, "action"),
            blueprint.layout.digest,
            blueprint.rollouts_per_batch if is_learner else experiment.env.num_splits,
            num_threads_of(blueprint, kind),
            experiment.env if kind == "collect" else None,
            blueprint.weights.digest,
            blueprint.spaces.team and blueprint.spaces.team.identity,
            str(torch.__version__),
            processor_features(),
            sys.version,
            experiment.staleness.is_fixed,
            compiler_identity(),
        )
    )
    digest = hashlib.blake2b(described, digest_size=16)
    for path in sorted(sources_of(blueprint, kind)):
        digest.update(path.read_bytes())
    return cache_directory() / f"{kind}-{digest.hexdigest()}.so"


def num_threads_of(blueprint: Blueprint, kind: Kind) -> int:
    """How many threads may share the products of a function."""
    return blueprint.experiment.learner.threads if kind in ("steps", "prepare") else 1


def sources_of(blueprint: Blueprint, kind: Kind) -> Iterable[Path]:
    """Source files that determine what is computed."""
    engine = Path(inspect.getfile(gradient)).parents[1]
    for folder in ("algorithms", "layers", "spaces"):
        yield from (engine / folder).rglob("*.py")
    if kind == "collect":
        yield from (engine / "envs").rglob("*.py")
    yield from (Path(__file__).with_name(f"{name}.py") for name in MAKERS)
    yield Path(inspect.getfile(host_code))
    for written in ("cpp/*", "native/*.py", "native/*.cpp"):
        yield from sorted(Path(__file__).parent.glob(written))
    for name, _ in blueprint.experiment.named_modules:
        path = Path(inspect.getfile(sys.modules[name]))
        yield from path.parent.rglob("*.py") if path.name == "__init__.py" else (path,)
