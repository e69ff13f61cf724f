"""The bins that rates over time are counted in."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tianji_cli.analysis.throughput import TARGET_BINS, bin_edges_s, bin_width_s


@pytest.mark.parametrize(("end_s", "width_s"), [(0.0, 1.0), (0.3, 0.5), (10.0, 0.5), (10.1, 0.5)])
def test_bins_cover_the_run_and_none_is_tiny(end_s: float, width_s: float):
    edges = bin_edges_s(end_s, width_s)
    assert edges[0] == 0.0
    assert edges[-1] >= end_s
    assert (np.diff(edges) >= width_s / 2).all()


@pytest.mark.parametrize("count", [2, 6, 25, 400])
def test_rates_of_few_batches_are_a_line_and_not_one_point(count: int):
    times_s = pd.Series(np.linspace(0.1, 4.1, count))
    edges = bin_edges_s(4.1, bin_width_s(times_s, 4.1))
    assert 2 <= len(edges) - 1 <= TARGET_BINS
