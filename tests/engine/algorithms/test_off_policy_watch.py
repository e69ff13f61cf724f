"""What the importance ratios of a learner's batches must be for it to be told."""

from __future__ import annotations

import pytest

from engine.algorithms.off_policy.ratios import RatioStatistics
from engine.algorithms.off_policy.watch import WINDOW, OffPolicyWatch

GOOD = {"ess": 0.95, "clip_fraction": 0.1, "ratio_max": 2.0}


def batch(
    mismatch: float | None = 0.001, *, truncates: bool = False, **changes: float
) -> RatioStatistics:
    first = {} if mismatch is None else {"log_ratio_first_by_lag": {0: mismatch, 3: 5.0}}
    return RatioStatistics(GOOD | changes, first, truncates)


def told(watch: OffPolicyWatch, count: int, **changes: float | bool) -> list[str]:
    found = [watch.check(number, batch(**changes)) for number in range(count)]
    return [text for text in found if text]


def test_good_batches_say_nothing():
    assert told(OffPolicyWatch(), 5 * WINDOW) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ess": 0.2}, "effective sample size is 20% of the batch"),
        ({"clip_fraction": 0.7}, "70% of the ratios are beyond the limits"),
        ({"mismatch": 0.4}, "what acts and what learns disagree: ln(pi / mu) is 0.4"),
    ],
)
def test_bad_batches_are_told_once(changes: dict[str, float], words: str):
    watch = OffPolicyWatch()
    assert told(watch, WINDOW - 1, **changes) == [], "a few of them can be chance"
    (text,) = told(watch, 3 * WINDOW, **changes)
    assert words in text
    assert text.startswith("update 0: ")
    assert told(watch, 2 * WINDOW) == []
    assert len(told(watch, 2 * WINDOW, **changes)) == 1, "it has come back"


def test_a_value_at_its_limit_is_not_told_again_and_again():
    watch = OffPolicyWatch()
    assert len(told(watch, WINDOW, ess=0.29)) == 1
    assert told(watch, 3 * WINDOW, ess=0.31) == []
    assert told(watch, 3 * WINDOW, ess=0.29) == []


def test_of_truncated_ratios_many_are_beyond_their_limit_in_any_case():
    watch, changes = OffPolicyWatch(), {"clip_fraction": 0.7, "truncates": True}
    assert told(watch, 3 * WINDOW, **changes) == []
    assert len(told(watch, 3 * WINDOW, ess=0.01, **changes)) == 1


def test_only_samples_of_the_learners_own_version_show_a_mismatch():
    watch = OffPolicyWatch()
    assert {watch.check(number, batch(None)) for number in range(3 * WINDOW)} == {""}
