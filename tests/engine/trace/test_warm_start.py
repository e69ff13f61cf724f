"""Which weights of a former run fit a network."""

from __future__ import annotations

from engine.trace.warm_start import SavedTensor, TakenWeights, WantedTensor, WarmStart, match

SAVED = {
    "input.mean": SavedTensor("F32", (4,)),
    "input.variance": SavedTensor("F32", (4,)),
    "input.count": SavedTensor("F32", ()),
    "trunk.0.weight": SavedTensor("F32", (8, 4)),
    "trunk.0.bias": SavedTensor("F32", (8,)),
    "head.weight": SavedTensor("F32", (2, 8)),
    "head.bias": SavedTensor("F32", (2,)),
}


def wanted(**changes: tuple[int, ...]) -> dict[str, WantedTensor]:
    """A network like the saved one, with other shapes; `__` in a name is a dot."""
    shapes = {name: tensor.shape for name, tensor in SAVED.items()}
    shapes |= {name.replace("__", "."): shape for name, shape in changes.items()}
    return {
        name: WantedTensor(shape, learns=not name.startswith("input"))
        for name, shape in shapes.items()
    }


def test_an_equal_network_takes_everything():
    taken = match(SAVED, wanted())
    assert taken.taken == tuple(SAVED)
    assert (taken.kept, taken.unused, taken.has_learnt) == ({}, (), True)
    assert taken.num_taken == taken.num_parameters == 4 + 4 + 1 + 32 + 8 + 16 + 2
    assert taken.summary == "all 7 tensors, 67 parameters"
    assert taken.words == []


def test_a_head_of_another_size_keeps_its_initial_values():
    taken = match(SAVED, wanted(head__weight=(6, 8), head__bias=(6,)))
    assert taken.taken == tuple(SAVED)[:5]
    assert taken.kept == {
        "head.weight": "is [6, 8] here, [2, 8] there",
        "head.bias": "is [6] here, [2] there",
    }
    assert taken.summary == "5 of 7 tensors, 49 of 103 parameters"
    assert taken.words == ["initial values instead: head.weight is [6, 8] here, [2, 8] there"]


def test_the_tensors_of_a_module_are_taken_together_or_not_at_all():
    """A bias belongs to its weights. The count of statistics would say that much was seen already,
    so those of other observations would never be learnt."""
    taken = match(SAVED, wanted(trunk__0__weight=(8, 6), input__mean=(6,), input__variance=(6,)))
    assert taken.taken == ("head.weight", "head.bias")
    assert taken.kept["trunk.0.bias"] == "is left with trunk.0.weight"
    assert taken.kept["input.count"] == "is left with input.mean"


def test_what_only_one_of_both_has_is_named():
    there = {
        **SAVED,
        "value.weight": SavedTensor("F32", (1, 8)),
        "log_std": SavedTensor("F32", (1,)),
    }
    here = {**wanted(), "core.gates": WantedTensor((3, 8))}
    taken = match(there, here)
    assert taken.kept == {"core.gates": "is not in that run"}
    assert taken.unused == ("value.weight", "log_std")
    assert taken.words == [
        "initial values instead: core.gates is not in that run",
        "not used of that run: value, log_std",
    ]


def test_a_parameter_that_follows_a_schedule_begins_anew_and_its_module_does_not():
    there = {**SAVED, "epsilon": SavedTensor("F32", ()), "scale": SavedTensor("F32", ())}
    here = {
        **wanted(),
        "epsilon": WantedTensor((), learns=False, is_scheduled=True),
        "scale": WantedTensor(()),
    }
    taken = match(there, here)
    assert taken.kept == {"epsilon": "follows its schedule"}
    assert "scale" in taken.taken
    missing = match(SAVED, {**wanted(), "epsilon": here["epsilon"]})
    assert missing.kept == taken.kept


def test_another_type_does_not_fit():
    there = {**SAVED, "head.bias": SavedTensor("F64", (2,))}
    assert match(there, wanted()).kept == {
        "head.weight": "is left with head.bias",
        "head.bias": "is F32 here, F64 there",
    }


def test_running_statistics_alone_are_nothing_learnt():
    here = wanted(trunk__0__weight=(9, 4), trunk__0__bias=(9,), head__weight=(2, 9))
    taken = match(SAVED, here)
    assert taken.taken == ("input.mean", "input.variance", "input.count")
    assert not taken.has_learnt
    assert not match({}, wanted()).has_learnt


def test_many_modules_are_not_all_listed():
    here = {f"layer{number}.weight": WantedTensor((1,)) for number in range(40)}
    (line,) = match({}, here).words
    assert line.endswith(" and 28 more")


def test_an_event_says_it_in_one_line():
    weights = TakenWeights(
        taken=("a",),
        kept={"b": "is not in that run"},
        num_taken=1,
        num_parameters=3,
        has_learnt=True,
    )
    warm_start = WarmStart(
        run_id="day1", checkpoint="v7", version=7, weights=weights, num_bytes=1, sha256=""
    )
    assert warm_start.words == (
        "version 7 of run day1: 1 of 2 tensors, 1 of 3 parameters;"
        " initial values instead: b is not in that run"
    )
