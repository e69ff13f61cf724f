"""What the importance ratios of a learner's batches must be for it to be told."""

from __future__ import annotations

import pytest

from engine.algorithms.off_policy.ratios import WINDOW, RatioStatistics
from engine.algorithms.off_policy.watch import OffPolicyWatch
from engine.spec import StalenessMode, StalenessSpec

GOOD = {"ess": 0.95, "clip_fraction": 0.1, "ratio_max": 2.0}


def batch(
    mismatch: float | None = 0.001,
    *,
    truncates: bool = False,
    is_proximal: bool = False,
    **changes: float,
) -> RatioStatistics:
    """With one sample of lag 0 far beyond the others, as of a Gaussian policy in bfloat16."""
    first = {"log_ratio_first_by_lag": {0: 0.5, 3: 5.0}}
    return RatioStatistics(GOOD | changes, first, truncates, is_proximal, mismatch)


def watching(
    mode: StalenessMode = "block", *, can_correct: bool = True, **lag: int
) -> OffPolicyWatch:
    return OffPolicyWatch(StalenessSpec(mode=mode, **lag), can_correct=can_correct)


def told(watch: OffPolicyWatch, count: int, **changes: float | bool) -> list[str]:
    found = [watch.check(number, batch(**changes)) for number in range(count)]
    return [text for text in found if text]


def test_good_batches_say_nothing():
    assert told(watching(), 5 * WINDOW) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ess": 0.2}, "effective sample size is 20% of the batch"),
        ({"clip_fraction": 0.7}, "70% of the ratios are beyond the limits"),
        ({"mismatch": 0.4}, "what acts and what learns disagree: |ln(pi / mu)| is 0.4"),
    ],
)
def test_bad_batches_are_told_once(changes: dict[str, float], words: str):
    watch = watching()
    assert told(watch, WINDOW - 1, **changes) == [], "a few of them can be chance"
    (text,) = told(watch, 3 * WINDOW, **changes)
    assert words in text
    assert text.startswith("update 0: ")
    assert told(watch, 2 * WINDOW) == []
    assert len(told(watch, 2 * WINDOW, **changes)) == 1, "it has come back"


def test_a_value_at_its_limit_is_not_told_again_and_again():
    watch = watching()
    assert len(told(watch, WINDOW, ess=0.29)) == 1
    assert told(watch, 3 * WINDOW, ess=0.31) == []
    assert told(watch, 3 * WINDOW, ess=0.29) == []


def test_of_truncated_ratios_many_are_beyond_their_limit_in_any_case():
    watch, changes = watching(), {"clip_fraction": 0.7, "truncates": True}
    assert told(watch, 3 * WINDOW, **changes) == []
    assert len(told(watch, 3 * WINDOW, ess=0.01, **changes)) == 1


def test_only_samples_of_the_learners_own_version_show_a_mismatch():
    watch = watching()
    assert {watch.check(number, batch(None)) for number in range(3 * WINDOW)} == {""}


def test_blended_weights_are_no_mismatch():
    watch = watching()
    bad = [watch.check(n, batch(0.4), is_blended=True) for n in range(3 * WINDOW)]
    assert set(bad) == {""}
    assert len(told(watch, WINDOW, mismatch=0.4)) == 1


@pytest.mark.parametrize(
    ("mode", "lag", "setting"),
    [
        ("block", {"max_lag": 2}, "lower staleness.max_lag"),
        ("drop", {"max_lag": 2}, "lower staleness.max_lag"),
        ("block", {"max_lag": "auto"}, "set staleness.max_lag=0"),
        ("block", {"max_lag": 0}, ""),
        ("fixed", {"lag": 2}, "lower staleness.lag"),
        ("correct", {}, ""),
        ("unbounded", {}, ""),
    ],
)
def test_only_settings_that_do_something_are_advised(
    mode: StalenessMode, lag: dict[str, int], setting: str
):
    for changes, rest in (
        ({"ess": 0.2}, "take smaller steps or correct (docs/algorithms.md)"),
        ({"clip_fraction": 0.7}, "take fewer or smaller steps on each batch"),
    ):
        (text,) = told(watching(mode, **lag), WINDOW, **changes)
        between = {"": "", "ess": ", ", "clip_fraction": " or "}[setting and next(iter(changes))]
        assert text.endswith(f": {setting}{between}{rest}")


def test_where_a_correction_is_on_it_is_not_advised():
    (text,) = told(watching("correct", can_correct=False), WINDOW, ess=0.2)
    assert text.endswith(": take smaller steps")


def test_ratios_to_the_policy_before_the_update_do_not_depend_on_lag():
    (text,) = told(watching(can_correct=False), WINDOW, clip_fraction=0.7, is_proximal=True)
    assert text.endswith(": take fewer or smaller steps on each batch")
