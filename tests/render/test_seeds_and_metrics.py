"""Figures of metrics, and of runs that differ in their seed only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.synthetic_run import write_synthetic_run
from tianji_cli.analysis.bands import BOOTSTRAP, MIN_TO_MAX, band_of
from tianji_cli.analysis.metrics import LARGEST, MAX_BINS, metrics_over_time
from tianji_cli.analysis.run import ManifestView
from tianji_cli.analysis.settings import differing_settings, groups_note, settings_columns
from tianji_cli.analysis.verify import examine_runs
from tianji_cli.commands.report import write_report
from tianji_cli.plotting.figure_style import save_pdf
from tianji_cli.render.run.figures import FIGURES, make_figure
from tianji_cli.render.run.figures_metrics import MAX_PANELS, metric_names
from tianji_cli.storage.run_dir import RunPaths


def batches(num: int, **metrics: object) -> pd.DataFrame:
    columns = {f"metric.{name}": values for name, values in metrics.items()}
    return pd.DataFrame({"t_s": np.arange(num, dtype="float64"), **columns})


def figure_of(name: str, runs: list[RunPaths]):
    (spec,) = (spec for spec in FIGURES if spec.name == name)
    return make_figure(spec, [examined.curves for examined in examine_runs(runs)])


def with_settings(paths: RunPaths, **settings: object) -> RunPaths:
    manifest = json.loads(paths.manifest.read_text())
    for key, value in settings.items():
        where = manifest["experiment"]
        *above, last = key.split("__")
        for part in above:
            where = where[part]
        where[last] = value
    paths.manifest.write_text(json.dumps(manifest))
    return paths


def with_metrics(paths: RunPaths, **metrics: float) -> RunPaths:
    file = paths.trace / "consumption.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["metrics"] = metrics
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[RunPaths]:
    """Two settings, three and two seeds; the second setting learns faster."""
    root = tmp_path_factory.mktemp("seeds")
    made = []
    for rate, num_seeds in ((0.001, 3), (0.003, 2)):
        for seed in range(num_seeds):
            speed = (1.0 if rate == 0.001 else 2.0) * (1 + 0.1 * seed)
            paths = write_synthetic_run(root / f"{rate}-{seed}", speed=speed, num_batches=60)
            made.append(
                with_settings(paths, seed=seed, name=f"n{seed}", algorithm__learning_rate=rate)
            )
    return made


def test_metrics_are_thinned_with_their_extremes():
    found = metrics_over_time(batches(1000, loss=np.arange(1000.0)), 1000.0)
    frame = found["loss"]
    assert MAX_BINS / 4 <= len(frame) <= MAX_BINS + 1
    assert (frame["low"] <= frame["mean"]).all()
    assert (frame["mean"] <= frame["high"]).all()
    assert frame["low"].iloc[0] == 0.0
    assert frame["high"].iloc[-1] == 999.0
    assert frame["t_s"].is_monotonic_increasing


def test_few_batches_are_shown_one_by_one():
    frame = metrics_over_time(batches(5, loss=[3.0, np.nan, 1.0, np.nan, 2.0]), 5.0)["loss"]
    assert frame["t_s"].tolist() == [0.0, 2.0, 4.0]
    assert frame["mean"].tolist() == frame["low"].tolist() == frame["high"].tolist() == [3, 1, 2]


def test_known_metrics_come_first_and_empty_ones_not_at_all():
    table = batches(2, zeal=[1.0, 2.0], entropy=[1.0, 1.0], loss=[1.0, 2.0], none=[np.nan, np.nan])
    assert list(metrics_over_time(table, 2.0)) == ["loss", "entropy", "zeal"]


def test_a_run_without_a_batch_has_no_metrics():
    assert metrics_over_time(pd.DataFrame({"t_s": pd.Series(dtype="float64")}), 0.0) == {}


def test_the_largest_numbers_can_be_drawn(tmp_path: Path):
    table = batches(3, loss=[1e308, -1e308, 1e308], huge=[1e308, 1e308, 1e308])
    assert metrics_over_time(table, 3.0)["loss"]["high"].max() == LARGEST
    run = with_metrics(
        write_synthetic_run(tmp_path / "run", num_batches=4), loss=1e308, huge=-1e308
    )
    write_report([run], None)


def test_each_metric_has_a_labelled_panel(tmp_path: Path):
    run = write_synthetic_run(tmp_path / "run", num_batches=40)
    with_metrics(run, entropy=0.5, learning_rate=0.001, gradient_norm=0.3, mine=-2.0)
    figure = figure_of("metrics", [run])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["entropy (nats)", "gradient norm", "learning rate", "mine"]
    below = [axes.get_xlabel() for axes in figure.axes]
    assert below == ["", "", *["time since training started (s)"] * 2]
    assert figure.get_suptitle() == "Entropy starts at 0.5 and ends at 0.5 nats"


def test_an_algorithm_that_reports_too_much_is_drawn_in_part(tmp_path: Path):
    run = write_synthetic_run(tmp_path / "run", num_batches=4)
    with_metrics(run, entropy=0.5, **{f"m{number:02}": 1.0 for number in range(40)})
    (examined,) = examine_runs([run])
    names = metric_names([examined.curves])
    assert len(names) == MAX_PANELS
    assert names[:2] == ["entropy", "m00"]


def test_values_over_decades_are_on_a_logarithmic_axis(tmp_path: Path):
    run = write_synthetic_run(tmp_path / "run", num_batches=40)  # its loss is 1 / (batch + 1)
    (axes,) = figure_of("metrics", [run]).axes
    assert axes.get_yscale() == "linear"
    file = run.trace / "consumption.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["metrics"] = {"value_loss": 10 ** (-number / 5), "policy_loss": (-1) ** number}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scales = [axes.get_yscale() for axes in figure_of("metrics", [run]).axes]
    assert scales == ["linear", "log"]


def line(x: list[float], y: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"x": x, "y": y})


def test_a_band_of_few_is_from_the_least_to_the_greatest():
    found = band_of([line([0, 4], [0, 4]), line([2, 6], [6, 6])], "x", "y")
    assert found is not None
    assert (found.kind, found.count) == (MIN_TO_MAX, 2)
    assert (found.x[0], found.x[-1]) == (2.0, 4.0), "where both have a value"
    assert (found.low[0], found.mean[0], found.high[0]) == (2.0, 4.0, 6.0)
    held = band_of([line([0, 4], [0, 4]), line([2, 6], [6, 6])], "x", "y", holds_last=True)
    assert held is not None
    assert (held.x[-1], held.low[-1], held.mean[-1]) == (6.0, 4.0, 5.0)


def test_a_band_of_many_is_a_bootstrap_interval_of_their_mean():
    values = np.random.default_rng(3).normal(10.0, 2.0, 40)
    found = band_of([line([0, 1], [v, v]) for v in values], "x", "y")
    assert found is not None
    assert found.kind == BOOTSTRAP
    error = 1.96 * values.std() / np.sqrt(40)
    assert found.high[0] - found.low[0] == pytest.approx(2 * error, rel=0.1)
    again = band_of([line([0, 1], [v, v]) for v in values], "x", "y")
    assert again is not None
    assert np.array_equal(again.low, found.low), "the same each time"


@pytest.mark.parametrize(
    "curves",
    [
        [],
        [line([0, 1], [0, 1])],
        [line([0, 1], [0, 1]), line([], [])],
        [line([0, 1], [0, 1]), line([2, 3], [0, 1])],
    ],
)
def test_there_is_no_band_without_two_runs_that_overlap(curves: list[pd.DataFrame]):
    assert band_of(curves, "x", "y") is None


def manifests(*experiments: dict[str, object]) -> list[ManifestView]:
    return [ManifestView({"experiment": one}) for one in experiments]


def test_runs_that_differ_in_seed_and_name_only_are_a_group():
    found = differing_settings(
        manifests(
            {"seed": 0, "name": "a", "algorithm": {"learning_rate": 1}},
            {"seed": 0, "name": "b", "algorithm": {"learning_rate": 2}},
            {"seed": 1, "name": "a", "algorithm": {"learning_rate": 1.0}},
        )
    )
    assert [(group.label, group.runs, group.seeds) for group in found.groups] == [
        ("learning_rate 1", [0, 2], [0, 1]),
        ("learning_rate 2", [1], [0]),
    ]
    assert found.groups[0].title == "learning_rate 1, n = 2"
    assert "a, c" in groups_note(found, ["a", "b", "c"])


def test_each_run_on_its_own_makes_no_group():
    found = differing_settings(manifests({"seed": 0, "x": 1}, {"seed": 1, "x": 2}))
    assert found.groups == []
    assert groups_note(found, ["a", "b"]) == ""


def test_labels_that_would_be_the_same_are_told_apart():
    long = "x" * 60
    one, two = {"env": {"id": f"{long}1"}}, {"env": {"id": f"{long}2"}}
    found = differing_settings(manifests(one, two, one, two))
    labels = [group.label for group in found.groups]
    assert len(set(labels)) == 2
    assert labels[0].startswith("1: id xxx")


def test_many_runs_have_a_column_for_each_group():
    runs = [{"seed": seed, "rate": rate} for rate in (1, 2) for seed in range(4)]
    found = differing_settings(manifests(*runs))
    headings, rows = settings_columns(found, [str(number) for number in range(8)])
    assert headings == ["setting", "rate 1, n = 4", "rate 2, n = 4"]
    assert rows == [("rate", "1", "2"), ("seed", "0, 1, 2, 3", "0, 1, 2, 3")]
    few = differing_settings(manifests(*runs[2:5]))
    headings, rows = settings_columns(few, ["a", "b", "c"])
    assert headings == ["setting", "a", "b", "c"]
    assert rows == [("rate", "1", "1", "2"), ("seed", "2", "3", "0")]


@pytest.mark.parametrize(
    "name", ["return_over_time", "return_over_env_steps", "rates", "lag_over_time", "metrics"]
)
def test_seeds_are_drawn_as_mean_and_band(seeds: list[RunPaths], name: str):
    figure = figure_of(name, seeds)
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[:3] == [
        "learning_rate 0.001, n = 3",
        "learning_rate 0.003, n = 2",
        "band: least to greatest",
    ]
    for axes in figure.axes:
        assert len([line for line in axes.lines if line.get_label()[0] != "_"]) >= 2
        assert len(axes.collections) == 3, "two bands, and one for the legend"


def test_runs_of_different_settings_are_drawn_each(seeds: list[RunPaths]):
    figure = figure_of("return_over_time", [seeds[0], seeds[3]])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == [seeds[0].run_id, seeds[3].run_id]


@pytest.mark.usefixtures("without_drawing")
def test_page_and_document_tell_the_groups(seeds: list[RunPaths], tmp_path: Path):
    result = write_report(seeds, tmp_path / "out")
    assert result.document.differences is not None
    assert [group.runs for group in result.document.differences.groups] == [[0, 1, 2], [3, 4]]
    page = result.report.read_text(encoding="utf-8")
    assert "same settings, drawn as mean and band over seeds" in page


@pytest.mark.usefixtures("without_drawing")
def test_pdf_is_written_of_comparisons_and_where_it_is_asked_for(
    seeds: list[RunPaths], tmp_path: Path
):
    compared = write_report(seeds[:2], tmp_path / "both")
    assert len(compared.pdfs) == len(compared.figures) / 2
    assert all(path.suffix == ".pdf" and path.is_file() for path in compared.pdfs)
    assert set(map(str, compared.pdfs)) < set(compared.document.figures)
    assert 'href="plots/rates.pdf"' in compared.report.read_text(encoding="utf-8")
    assert write_report(seeds[:2], tmp_path / "no", writes_pdf=False).pdfs == ()
    single = write_report(seeds[:1], tmp_path / "one")
    assert single.pdfs == ()
    assert "PDF" not in single.report.read_text(encoding="utf-8")
    assert len(write_report(seeds[:1], tmp_path / "one", writes_pdf=True).pdfs) > 5


def test_the_same_figure_gives_the_same_pdf(seeds: list[RunPaths], tmp_path: Path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        save_pdf(figure_of("rates", seeds[:2]), tmp_path / place, "rates")
    one, two = ((tmp_path / place / "rates.pdf").read_bytes() for place in ("a", "b"))
    assert one.startswith(b"%PDF")
    assert one == two
    assert b"/Type3" not in one, "journals refuse such fonts"
