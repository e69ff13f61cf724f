"""Keys of an experiment that are written although nothing reads them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from engine.config.yaml_text import KeyPath
from engine.errors import ConfigError
from engine.spec import StalenessSpec

SECTION: Final = "staleness"
FLOOR: Final = "least_ess"
_DEFAULTS: Mapping[str, object] = {
    field.encode_name: field.default for field in msgspec.structs.fields(StalenessSpec)
}


def refuse_unread_lag(
    staleness: StalenessSpec,
    data: Mapping[str, Any],
    in_file: Collection[KeyPath],
    settings: Collection[KeyPath],
) -> None:
    """Refuses a bound on lag, or a floor of one, that nothing reads, as it would seem to hold.

    A setting may give the mode of a file another value: then the file's bound is left alone. So is
    a default that a file has because all keys were written into it.

    Args:
        staleness: The rule that applies.
        data: The experiment as it was written, with its settings.
        in_file, settings: Keys that the file or a setting has.

    Raises:
        ConfigError: There is such a bound; `where` is the dotted key.
    """
    section = data.get(SECTION)
    if not isinstance(section, Mapping):
        return
    is_whole = (SECTION,) in settings
    has_set_mode = is_whole or (SECTION, "mode") in settings
    for key in ("max_lag", "lag"):
        path = (SECTION, key)
        is_set = is_whole or path in settings
        is_of_file = path in in_file and not has_set_mode and section.get(key) != _DEFAULTS[key]
        if key in section and key != staleness.bound_key and (is_set or is_of_file):
            other = staleness.bound_key
            raise ConfigError(
                f"mode `{staleness.mode}` does not read it",
                where=".".join(path),
                fix=f"set {SECTION}.{other} instead" if other else "leave it out",
            )
    path, has_set_bound = (SECTION, FLOOR), has_set_mode or (SECTION, "max_lag") in settings
    is_of_file = path in in_file and not has_set_bound and section.get(FLOOR) != _DEFAULTS[FLOOR]
    is_set = FLOOR in section and (is_whole or path in settings)
    if not staleness.is_adaptive and (is_set or is_of_file):
        raise ConfigError(
            "only an adaptive bound on lag has a floor",
            where=".".join(path),
            fix=f"set {SECTION}.max_lag=auto, or leave it out",
        )
