"""The watchdog: who does not get on is named once, the first one first, and nobody else is."""

from __future__ import annotations

from engine.messages import ProbeAnswered
from engine.roles.coordinator.watchdog import MAX_PATIENCE, PATIENCE, PROBE_S, Watchdog
from engine.spec import WatchdogSpec

PROCESSES = ("actor-0", "actor-1", "learner-0", "evaluator-0")
STUCK_S, STALLED_S = 30.0, 100.0


def make_watchdog(stuck_s: float | None = STUCK_S, stalled_s: float | None = STALLED_S) -> Watchdog:
    kinds = {process: frozenset({process.partition("-")[0]}) for process in PROCESSES}
    watchdog = Watchdog(WatchdogSpec(stuck_s=stuck_s, stalled_s=stalled_s), kinds)
    watchdog.start(0.0)
    return watchdog


def run(
    watchdog: Watchdog,
    begin_s: float,
    end_s: float,
    silent: frozenset[str] = frozenset(),
    idle: frozenset[str] = frozenset(),
    longest_turn_s: float = 0.01,
) -> list[tuple[str, float]]:
    """Goes on second by second; whoever is not silent answers at once.

    Returns:
        Who was named as stuck, and when.
    """
    named = []
    now_s = begin_s
    while now_s <= end_s:
        for process, probe in watchdog.probes(PROCESSES, now_s):
            if process not in silent:
                answer = ProbeAnswered(
                    process=process,
                    number=probe.number,
                    longest_turn_s=longest_turn_s,
                    work=0 if process in idle else int(now_s),
                )
                watchdog.answered(answer, now_s)
        named += [(silence.process, now_s) for silence in watchdog.newly_stuck(now_s)]
        now_s += 1.0
    return named


def test_whoever_answers_is_left_alone_whatever_it_waits_for():
    watchdog = make_watchdog()
    assert run(watchdog, 0, 90, idle=frozenset(PROCESSES)) == []
    assert watchdog.stalled(90) is None


def test_a_silent_process_is_named_once_within_the_stated_time():
    watchdog = make_watchdog()
    run(watchdog, 0, 10)
    named = run(watchdog, 11, 90, silent=frozenset({"actor-1"}))
    ((process, at_s),) = named
    assert process == "actor-1"
    assert at_s - 10 <= STUCK_S + PROBE_S + 1
    assert watchdog.stalled(90) is None, "the others get on"


def test_the_earliest_silence_comes_first():
    watchdog = make_watchdog()
    run(watchdog, 0, 10)
    run(watchdog, 11, 20, silent=frozenset({"learner-0"}))
    named = run(watchdog, 21, 90, silent=frozenset({"learner-0", "actor-0"}))
    assert [process for process, _ in named] == ["learner-0", "actor-0"]
    both = make_watchdog()
    run(both, 0, 10, silent=frozenset({"learner-0"}))
    both.probes(PROCESSES, 11)
    later = both.newly_stuck(80.0)
    assert later[0].process == "learner-0", "also when all are noticed at the same time"


def test_a_process_that_is_always_slow_is_no_alarm():
    watchdog = make_watchdog()
    run(watchdog, 0, 10, longest_turn_s=20.0)
    patient_s = PATIENCE * 20.0
    named = run(watchdog, 11, 300, silent=frozenset({"actor-0"}), longest_turn_s=20.0)
    ((_, at_s),) = named
    assert patient_s <= at_s - 10 <= patient_s + PROBE_S + 1


def test_having_been_frozen_once_does_not_make_it_patient_for_ever():
    watchdog = make_watchdog()
    run(watchdog, 0, 10, longest_turn_s=1e6)
    named = run(watchdog, 11, 600, silent=frozenset({"actor-0"}), longest_turn_s=1e6)
    assert named[0][1] <= 10 + MAX_PATIENCE * STUCK_S + PROBE_S + 1


def test_one_that_answers_again_has_recovered_and_may_be_named_again():
    watchdog = make_watchdog()
    silent = frozenset({"actor-0"})
    run(watchdog, 0, 60, silent=silent)
    late = ProbeAnswered(process="actor-0", number=1, longest_turn_s=1.0, work=1)
    assert watchdog.answered(late, 61.0)
    assert not watchdog.answered(late, 61.5), "it is told once"
    run(watchdog, 62, 70)
    assert len(run(watchdog, 71, 200, silent=silent)) == 1


def test_a_restarted_process_begins_anew():
    watchdog = make_watchdog()
    run(watchdog, 0, 20, silent=frozenset({"actor-0"}))
    others = [process for process in PROCESSES if process != "actor-0"]
    watchdog.probes(others, 21.0)
    (probe,) = [p for process, p in watchdog.probes(PROCESSES, 40.0) if process == "actor-0"]
    assert probe.number == 1
    assert watchdog.newly_stuck(45.0) == []


def test_a_run_in_which_nothing_is_done_ends_with_the_names_of_the_silent():
    watchdog = make_watchdog()
    run(watchdog, 0, 10)
    rest = frozenset(PROCESSES) - {"actor-1"}
    run(watchdog, 11, 120, silent=frozenset({"actor-1"}), idle=rest)
    why = watchdog.stalled(120.0)
    assert why is not None
    assert "silent, the longest first: actor-1" in why


def test_evaluating_the_same_weights_is_no_progress():
    watchdog = make_watchdog()
    run(watchdog, 0, 10)
    run(watchdog, 11, 130, idle=frozenset(PROCESSES) - {"evaluator-0"})
    why = watchdog.stalled(130.0)
    assert why is not None
    assert "though all of them answer" in why


def test_null_switches_both_off():
    watchdog = make_watchdog(None, None)
    assert run(watchdog, 0, 500, silent=frozenset(PROCESSES)) == []
    assert watchdog.stalled(500.0) is None
