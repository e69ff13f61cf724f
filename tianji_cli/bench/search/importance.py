"""How much each key of a search has mattered: PED-ANOVA, from finished trials alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.errors import ConfigError
from tianji_cli.bench.search.board import distributions_of, need_optuna
from tianji_cli.bench.search.space import Params
from tianji_cli.bench.search.spec import Search

MIN_TRIALS = 4
"""With fewer the best half of them is a single trial."""
MIN_BEST = 5
"""The best trials that are compared with all; as many as PED-ANOVA's authors recommend."""


def importance_of(
    search: Search, trials: Sequence[tuple[Params, float]]
) -> tuple[dict[str, float], str]:
    """The share of each key in what distinguishes the best trials from all of them.

    Watanabe et al. (2023), https://arxiv.org/abs/2304.10255. fANOVA would need scikit-learn.

    Args:
        search: The search.
        trials: Setting and value of each complete trial.

    Returns:
        By key, the most important first, in all 1; and, if it is empty, why.
    """
    known = [(params, value) for params, value in trials if math.isfinite(value)]
    if len(known) < MIN_TRIALS:
        return {}, f"importance needs {MIN_TRIALS} finished trials"
    if len({value for _, value in known}) == 1:
        return {}, "all trials have the same value"
    try:
        need_optuna()
    except ConfigError as error:
        return {}, f"importance needs Optuna: {error.fix}"
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize" if search.to_maximize else "minimize")
    distributions = distributions_of(search)
    study.add_trials(
        [
            optuna.trial.create_trial(value=value, params=params, distributions=distributions)
            for params, value in known
        ]
    )
    best = min(0.5, max(0.1, MIN_BEST / len(known)))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=best)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: round(share, 6) for key, share in found.items()}, ""
