"""How many policies of a team have a learner each: as many groups a policy like `environments` has.

It depends on the environment's agents and on the algorithm, so both are looked at here, before
anything is planned; hosts check it once more.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

from engine.errors import ConfigError
from engine.graph.policy import read_policy
from engine.host.malloc import reading_libraries
from engine.search_path import look_in
from engine.spec import Experiment


def num_apart(experiment: Experiment, directories: Sequence[str] = ()) -> int:
    """Policies that are trained by learners of their own; 1 if all are trained together.

    Args:
        experiment: With its distribution policy and `agents`.
        directories: Where the user's own modules are.

    Raises:
        ConfigError: The environment or the algorithm cannot be made here.
    """
    if not may_be_apart(experiment):
        return 1
    with reading_libraries():
        from engine.host.user_code import restored_process
        from engine.runtime.outlining import num_trained_apart

    look_in(directories)
    try:
        with restored_process(), redirect_stdout(sys.stderr):
            return num_trained_apart(experiment)
    except ConfigError as error:
        if not error.where.startswith("env."):
            raise
        if experiment.groups > 1:
            return experiment.groups  # only the hosts need its packages
        fix = f"{error.fix}; or tell how many policies there are: groups=N"
        raise ConfigError(error.what, where=error.where, fix=fix) from error


def may_be_apart(experiment: Experiment) -> bool:
    """Whether the policy splits teams, and there are several policies, as far as files say."""
    agents = experiment.agents
    has_several = agents == "separate" or (isinstance(agents, dict) and len(agents) > 1)
    return has_several and read_policy(experiment.policy).splits_teams
