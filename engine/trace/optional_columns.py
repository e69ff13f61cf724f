"""Columns of fields that most tables do not have: they take no memory until a row has one."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import UNSET, UnsetType

if TYPE_CHECKING:
    import numpy as np

NO_NUMBER = -(2**63)
"""Where a row has no number; no row of a table has this one."""


class OptionalNumbers:
    """Whole numbers, of rows of which some have none."""

    def __init__(self) -> None:
        self._numbers = array("q")

    def put(self, row: int, value: int) -> None:
        """Takes the value of a row after those of the rows before it."""
        self._numbers.extend([NO_NUMBER] * (row - len(self._numbers)))
        self._numbers.append(value)

    def __getitem__(self, row: int) -> int | UnsetType:
        value = self._numbers[row] if row < len(self._numbers) else NO_NUMBER
        return UNSET if value == NO_NUMBER else value

    def series(self, num_rows: int) -> np.ndarray | None:
        """Float64 [rows], NaN where a row has none; None if no row has any."""
        if not self._numbers:
            return None
        import numpy as np

        numbers = np.asarray(self._numbers)
        found = np.full(num_rows, np.nan)
        found[: len(numbers)] = np.where(numbers == NO_NUMBER, np.nan, numbers)
        return found


class OptionalFloats:
    """Real numbers, of rows of which some have none."""

    def __init__(self) -> None:
        self._numbers = array("d")

    def put(self, row: int, value: float) -> None:
        """Takes the value of a row after those of the rows before it."""
        self._numbers.extend([math.nan] * (row - len(self._numbers)))
        self._numbers.append(value)

    def __getitem__(self, row: int) -> float | UnsetType:
        value = self._numbers[row] if row < len(self._numbers) else math.nan
        return UNSET if math.isnan(value) else value

    def series(self, num_rows: int) -> np.ndarray | None:
        """Float64 [rows], NaN where a row has none; None if no row has any."""
        if not self._numbers:
            return None
        import numpy as np

        found = np.full(num_rows, np.nan)
        found[: len(self._numbers)] = self._numbers
        return found


class OptionalMappings:
    """Numbers by name, of rows of which some have none. Rows mostly have the same names, which are
    then stored once; whatever they name, they take no more than a few times what they hold."""

    def __init__(self) -> None:
        self._first = 0
        """The first row that has any."""
        self._values = array("d")
        self._ends = array("q")
        """Of each row from that one on, where its values end."""
        self._names: list[tuple[str, ...]] = []
        self._known: dict[tuple[str, ...], tuple[str, ...]] = {}

    def put(self, row: int, value: Mapping[str, float]) -> None:
        """Takes the values of a row after those of the rows before it."""
        if not self._ends:
            self._first = row
        num_skipped = row - self._first - len(self._ends)
        self._names.extend([()] * num_skipped)
        self._ends.extend([len(self._values)] * num_skipped)
        names = tuple(value)
        self._names.append(self._known.setdefault(names, names))
        self._values.extend(value.values())
        self._ends.append(len(self._values))

    def __getitem__(self, row: int) -> dict[str, float] | UnsetType:
        index = row - self._first
        if not 0 <= index < len(self._ends) or not self._names[index]:
            return UNSET
        begin = self._ends[index - 1] if index else 0
        values = self._values[begin : self._ends[index]]
        return dict(zip(self._names[index], values, strict=True))

    @property
    def names(self) -> list[str]:
        """All names, in the order in which they came."""
        return list(dict.fromkeys(name for names in self._known for name in names))

    def series(self, name: str, num_rows: int) -> np.ndarray:
        """Of one name, float64 [rows]; NaN where a row has none."""
        import numpy as np

        found = np.full(num_rows, np.nan)
        names = next(iter(self._known), ())
        are_alike = len(self._known) == 1 and len(self._values) == len(names) * len(self._ends)
        if are_alike and name in names:
            own = np.asarray(self._values)[names.index(name) :: len(names)]
            found[self._first : self._first + len(own)] = own
            return found
        places = {known: known.index(name) for known in self._known if name in known}
        for index, known in enumerate(self._names):
            if known in places:
                begin = self._ends[index - 1] if index else 0
                found[self._first + index] = self._values[begin + places[known]]
        return found
