"""JSON files that are named after a version of the weights and hold their own checksum."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import msgspec

from engine.errors import ConfigError

_NAME = re.compile(r"v\d{10}\.json")


class Sealed(Protocol):
    """What such a file says."""

    @property
    def version(self) -> int:
        """Of the weights."""
        ...

    @property
    def name(self) -> str:
        """Of the file."""
        ...

    def sealed(self) -> Self:
        """The same with its own checksum."""
        ...


SealedT = TypeVar("SealedT", bound=Sealed)


@dataclass(frozen=True, kw_only=True)
class SealedFormat(Generic[SealedT]):
    """One kind of these files.

    Attributes:
        type: What they say.
        noun: What they are, with its article, for errors.
        oldest, newest: The schema versions that this release reads.
        max_bytes: Larger ones are refused.
        fix: What to do about a file of another release.
    """

    type: type[SealedT]
    noun: str
    oldest: int
    newest: int
    max_bytes: int
    fix: str

    def parse(self, data: bytes, name: str, where: str) -> SealedT:
        """Parses a file that is called `name`; errors name `where`.

        Raises:
            ConfigError: It is not such a file, a release with another format wrote it, or it is
                damaged.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"not the name of {self.noun}", where=where)
        if len(data) > self.max_bytes:
            what = f"larger than {self.max_bytes} bytes, so not {self.noun}"
            raise ConfigError(what, where=where)
        try:
            self._check_version(msgspec.json.decode(data, type=_Versioned).schema_version, where)
            info = msgspec.json.decode(data, type=self.type)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(f"not {self.noun}: {error}", where=where) from error
        if info != info.sealed():
            raise ConfigError("its checksum does not match", where=where)
        if info.name != name:
            raise ConfigError(f"it says that it is version {info.version}", where=where)
        return info

    def _check_version(self, found: int, where: str) -> None:
        if self.oldest <= found <= self.newest:
            return
        read = f"{self.newest}" if self.oldest == self.newest else f"{self.oldest} to {self.newest}"
        raise ConfigError(
            f"its schema_version is {found}, this release reads {read}", where=where, fix=self.fix
        )


class _Versioned(msgspec.Struct):
    schema_version: int = 0
