"""The trials of a search: chosen, pruned, told, and taken up again after whatever interrupted."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError
from tianji_cli.bench.search.board import Board, Told, need_optuna, step_of, storage_at
from tianji_cli.bench.search.importance import importance_of
from tianji_cli.bench.search.progress import ReturnProgress, filled
from tianji_cli.bench.search.space import Params
from tianji_cli.bench.search.spec import CategoricalRange, FloatRange, IntRange, Search

optuna = pytest.importorskip("optuna")

SEARCH = Search(
    trials=10,
    startup_trials=3,
    space={
        "rate": FloatRange(low=1e-4, high=1e-2, log=True),
        "epochs": IntRange(low=1, high=8),
        "activation": CategoricalRange(choices=("tanh", "relu")),
    },
)
Open = Callable[..., Board]


@pytest.fixture
def open_board(tmp_path: Path) -> Iterator[Open]:
    """Opens the search as a new command would; the file is that of the one before."""
    with ExitStack() as held:

        def opened(search: Search = SEARCH, done: Mapping[int, Told] | None = None) -> Board:
            held.close()
            file = tmp_path / "search.db"
            return Board(held.enter_context(storage_at(file)), file, "t", search, done or {})

        yield opened


def value_at(params: Params) -> float:
    rate, epochs = params["rate"], params["epochs"]
    assert isinstance(rate, float)
    assert isinstance(epochs, int)
    return -abs(math.log10(rate) + 3) + 0.01 * epochs


def whole_search(board: Board, numbers: range, done: dict[int, Told]) -> None:
    for trial in numbers:
        params = board.params_of(trial)
        told = Told(params, "complete", value_at(params))
        board.tell(trial, told)
        done[trial] = told


def states(tmp_path: Path) -> list[tuple[int | None, str]]:
    with storage_at(tmp_path / "search.db") as storage:
        study = optuna.load_study(study_name="t", storage=storage)
        return [(trial.user_attrs.get("trial"), trial.state.name) for trial in study.trials]


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_search_that_was_interrupted_draws_the_same_as_one_that_was_not(
    sampler: str, open_board: Open, tmp_path: Path
):
    rate = FloatRange(low=1e-4, high=1e-2, log=True, points=5 if sampler == "grid" else None)
    search = msgspec.structs.replace(SEARCH, sampler=sampler, space={**SEARCH.space, "rate": rate})
    straight: dict[int, Told] = {}
    whole_search(open_board(search), range(8), straight)
    (tmp_path / "search.db").unlink()
    parts: dict[int, Told] = {}
    for start in (0, 3, 6):
        board = open_board(search, parts)
        whole_search(board, range(start, min(8, start + 3)), parts)
        if start < 6:
            board.params_of(start + 3)  # which is running when the command is killed
    assert parts == straight
    assert len({tuple(told.params.values()) for told in straight.values()}) == 8


def test_what_was_running_is_marked_as_failed_and_repeated_with_the_same_setting(
    open_board: Open, tmp_path: Path
):
    board, done = open_board(), {}
    whole_search(board, range(2), done)
    running = board.params_of(2)
    again = open_board(done=done)
    assert states(tmp_path)[2] == (2, "FAIL")
    assert again.params_of(2) == running
    again.tell(2, Told(running, "complete", 1.0))
    assert states(tmp_path) == [
        (0, "COMPLETE"), (1, "COMPLETE"), (2, "FAIL"), (2, "COMPLETE"),
    ]  # fmt: skip


def test_a_trial_that_ended_just_before_the_kill_is_told_from_its_record(
    open_board: Open, tmp_path: Path
):
    board = open_board()
    done = {0: Told(board.params_of(0), "complete", 3.0)}
    open_board(done=done)
    assert states(tmp_path) == [(0, "COMPLETE")]


def test_a_storage_that_was_lost_is_made_again_from_the_records(open_board: Open, tmp_path: Path):
    done: dict[int, Told] = {}
    board = open_board()
    whole_search(board, range(3), done)
    done[3] = Told(board.params_of(3), "pruned", returns={0: 1.0})
    board.tell(3, done[3])
    done[4] = Told(board.params_of(4), "failed")
    board.tell(4, done[4])
    following = board.params_of(5)
    (tmp_path / "search.db").unlink()
    again = open_board(done=done)
    assert [name for _, name in states(tmp_path)] == [*["COMPLETE"] * 3, "PRUNED", "FAIL"]
    assert again.params_of(5) == following


def test_a_setting_outside_the_space_is_not_taken_from_the_storage(open_board: Open):
    wide = msgspec.structs.replace(
        SEARCH, space={**SEARCH.space, "epochs": IntRange(low=100, high=200)}
    )
    assert open_board(wide).params_of(0)["epochs"] >= 100  # type: ignore[operator]  # a number
    assert open_board(SEARCH).params_of(0)["epochs"] <= 8  # type: ignore[operator]


def test_a_damaged_storage_is_one_error_that_says_what_to_do(tmp_path: Path):
    file = tmp_path / "search.db"
    file.write_bytes(b"no database at all, but long enough to have a header" * 9)
    with pytest.raises(ConfigError, match="cannot be kept") as caught, storage_at(file):
        pass
    assert caught.value.where == str(file)
    assert "remove it" in caught.value.fix


def test_a_path_that_no_url_can_hold_is_a_path(tmp_path: Path):
    place = tmp_path / "a?b#c%20 é"
    place.mkdir()
    with storage_at(place / "search.db"):
        pass
    assert [path.name for path in place.iterdir()] == ["search.db"]


def finished(board: Board, trial: int, level: float) -> None:
    """A trial whose return rises to `level` in ten equal steps."""
    returns = {step_of(0, point): level * point / 10 for point in range(1, 11)}
    board.tell(trial, Told(board.params_of(trial), "complete", level, returns))


def rising(level: float, until: int, seed: int = 0) -> dict[int, float]:
    return {step_of(seed, point): level * point / 10 for point in range(1, until + 1)}


def test_a_run_below_the_median_is_pruned_and_one_above_is_not(open_board: Open):
    board = open_board()
    for trial, level in enumerate((100.0, 200.0, 300.0)):
        board.params_of(trial)
        assert not board.heard(trial, rising(level, 5)), "too few are finished"
        finished(board, trial, level)
    board.params_of(3)
    assert board.heard(3, rising(150.0, 5))
    assert not board.heard(3, rising(250.0, 5))


def test_where_time_is_minimised_more_return_is_still_better(open_board: Open):
    search = msgspec.structs.replace(SEARCH, objective="time to threshold")
    board = open_board(search)
    for trial, level in enumerate((100.0, 200.0, 300.0)):
        finished(board, trial, level)
    board.params_of(3)
    assert board.heard(3, rising(150.0, 5))
    assert not board.heard(3, rising(250.0, 5))


def test_each_run_of_a_trial_is_judged_by_its_own_returns(open_board: Open):
    """Also if a run with another seed goes on beside it, or went before it, and was better."""
    search = msgspec.structs.replace(SEARCH, startup_trials=1)
    board = open_board(search)
    returns = {**rising(100.0, 10), **rising(100.0, 10, seed=1)}
    board.tell(0, Told(board.params_of(0), "complete", 100.0, returns))
    board.params_of(1)
    assert not board.heard(1, rising(500.0, 8))
    assert board.heard(1, rising(50.0, 5, seed=1))


def test_a_sampler_learns_from_what_it_is_told(open_board: Open):
    done: dict[int, Told] = {}
    whole_search(open_board(), range(24), done)
    values = [told.value or 0.0 for told in done.values()]
    assert sum(values[12:]) / 12 > sum(values[:5]) / 5


def test_the_key_that_decides_is_the_most_important():
    trials = []
    for number in range(20):
        rate = 10 ** (-4 + 2 * number / 19)
        params: Params = {"rate": rate, "epochs": 1 + 3 * number % 8, "activation": "tanh"}
        trials.append((params, -abs(math.log10(rate) + 2.2)))
    found, missing = importance_of(SEARCH, trials)
    assert missing == ""
    assert next(iter(found)) == "rate"
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    assert importance_of(SEARCH, trials) == (found, missing), "the same every time"


def test_importance_that_cannot_be_said_says_why(monkeypatch: pytest.MonkeyPatch):
    params: Params = {"rate": 1e-3, "epochs": 1, "activation": "tanh"}
    assert "4 finished trials" in importance_of(SEARCH, [(params, 1.0)] * 3)[1]
    assert "4 finished trials" in importance_of(SEARCH, [(params, math.inf)] * 9)[1]
    assert "same value" in importance_of(SEARCH, [(params, 1.0)] * 9)[1]
    without_optuna(monkeypatch)
    found, missing = importance_of(SEARCH, [(params, float(n)) for n in range(9)])
    assert found == {}
    assert "pip install" in missing


def without_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)


def test_without_optuna_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch):
    without_optuna(monkeypatch)
    with pytest.raises(ConfigError, match="needs Optuna") as caught:
        need_optuna()
    assert "pip install" in caught.value.fix
    assert "tune" in caught.value.fix or "optuna" in caught.value.fix


def test_returns_are_taken_whenever_another_tenth_of_the_budget_is_over(tmp_path: Path):
    progress = ReturnProgress(tmp_path, window=2, budget_s=100.0)
    assert not progress.look(), "nothing is there yet"
    trace = tmp_path / "trace"
    trace.mkdir()
    write_episodes(trace, [(1, 5.0), (8, 7.0), (12, 9.0), (29, 100.0)])
    assert progress.look()
    assert progress.returns == {1: 6.0, 2: 8.0}
    assert not progress.look()
    write_ledger(trace, 61.0)
    assert progress.look()
    assert progress.returns == {1: 6.0, 2: 8.0, 3: 54.5, 4: 54.5, 5: 54.5, 6: 54.5}


def test_a_point_before_the_first_episode_has_no_return(tmp_path: Path):
    progress = ReturnProgress(tmp_path, window=2, budget_s=10.0)
    (tmp_path / "trace").mkdir()
    write_ledger(tmp_path / "trace", 2.5)
    assert not progress.look()
    write_episodes(tmp_path / "trace", [(2.7, 4.0)])
    write_ledger(tmp_path / "trace", 3.1)
    assert progress.look()
    assert progress.returns == {3: 4.0}


def test_the_returns_are_of_whom_the_experiment_judges(tmp_path: Path):
    progress = ReturnProgress(tmp_path, window=2, budget_s=10.0, return_of="b")
    (tmp_path / "trace").mkdir()
    with (tmp_path / "trace" / "episodes.jsonl").open("w") as file:
        file.write(
            '{"table":"episodes","t_s":0.5,"actor":0,"episode_return":5.0,"length_env_steps":1,'
            '"version":0,"agent_returns":{"a":3.0,"b":2.0}}\n'
        )
    write_ledger(tmp_path / "trace", 1.1)
    assert progress.look()
    assert progress.returns == {1: 2.0}


def write_episodes(trace: Path, rows: list[tuple[float, float]]) -> None:
    with (trace / "episodes.jsonl").open("a") as file:
        for t_s, value in rows:
            file.write(
                f'{{"table":"episodes","t_s":{t_s},"actor":0,"episode_return":{value},'
                '"length_env_steps":1,"version":0}\n'
            )


def write_ledger(trace: Path, t_s: float) -> None:
    with (trace / "ledger.jsonl").open("a") as file:
        file.write(
            f'{{"table":"ledger","t_s":{t_s},"collected":0,"consumed":0,"dropped":0,'
            '"in_flight":0}\n'
        )


def test_a_run_that_needed_less_than_its_budget_counts_with_its_end_at_later_points():
    assert filled({1: 5.0, 2: 6.0}, 9.0) == {1: 5.0, 2: 6.0} | dict.fromkeys(range(3, 11), 9.0)
    assert filled({1: 5.0}, None) == {1: 5.0}
