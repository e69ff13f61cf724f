"""The rows of the summary table: one list for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.trace.summary import UNKNOWN, Summary
from tianji_cli import units

MAX_NAMED = 6
"""More agents than that are shown as a range."""


@dataclass(frozen=True)
class Row:
    """One line of the summary.

    Attributes:
        label: What it is.
        text: The value with its unit.
        note: What the number means, for new readers.
        is_optional: Left out if it has no value.
        remark: Further note on this value, if it could seem to contradict another.
    """

    label: str
    text: str
    note: str = ""
    is_optional: bool = False
    remark: str = ""

    @property
    def explanation(self) -> str:
        """Beside the value of a single run, short enough not to be folded."""
        return self.remark or self.note

    @property
    def remarked_text(self) -> str:
        """The value among those of other runs, which share one note."""
        return f"{self.text} ({self.remark})" if self.remark else self.text

    @property
    def is_left_out(self) -> bool:
        return self.is_optional and self.text == units.NONE


def verdict(summary: Summary) -> str:
    """The run in one sentence without its full stop."""
    if summary.status == "failed":
        return "The run failed; what it wrote until then is below"
    wall = units.seconds(summary.wall_s)
    if summary.status == "interrupted":
        return f"The run was interrupted after {wall}"
    if summary.threshold is not None:
        judged = f"{judged_return(summary)} {units.short(summary.threshold)}"
        if not summary.reached:
            return f"{judged} not reached in {wall}"
        when, steps = units.seconds(summary.time_to_threshold_s), summary.steps_to_threshold
        return f"{judged} reached in {when} and {units.count(steps)} env steps"
    return f"{units.count(summary.env_steps_consumed)} env steps trained in {wall}"


def judged_return(summary: Summary) -> str:
    """What is compared with the threshold, as the start of a sentence."""
    whose = f" of {summary.return_of}" if summary.return_of else ""
    return f"{'Evaluated' if summary.judge == 'evaluation' else 'Mean'} return{whose}"


def summary_rows(summary: Summary) -> list[Row]:
    """All of a summary with units, most important first."""
    return [row for row in _all_rows(summary) if not row.is_left_out]


def rows_side_by_side(summaries: Sequence[Summary]) -> list[tuple[Row, ...]]:
    """The same of several summaries, one row of each; what one of them says is in all."""
    rows = zip(*map(_all_rows, summaries), strict=True)
    return [same for same in rows if not all(row.is_left_out for row in same)]


def _all_rows(summary: Summary) -> list[Row]:
    return [*_outcome(summary), *_throughput(summary), *_ledger(summary), *_layout(summary)]


def threshold_text(summary: Summary) -> str:
    """`475 reached in 12.3 s`, `475 not reached`, or a dash without a threshold."""
    if summary.threshold is None:
        return units.NONE
    threshold = units.short(summary.threshold)
    if not summary.reached:
        return f"{threshold} not reached"
    return f"{threshold} reached in {units.seconds(summary.time_to_threshold_s)}"


def mean_at_end(value: float | None, summary: Summary) -> str:
    """The mean return with which a run ended, never rounded across its threshold."""
    return units.mean_return(value, summary.threshold)


def remark_of_end(value: float | None, summary: Summary, judge: str = "training") -> str:
    """Why the final mean of a run is on the other side of the threshold from its verdict.

    Args:
        value: The mean at the end.
        summary: Of the run.
        judge: Kind of returns in the mean.
    """
    if value is None or summary.threshold is None or summary.reached is None:
        return ""
    threshold = units.short(summary.threshold)
    if summary.reached == (value >= summary.threshold):
        return ""
    if judge != summary.judge:
        deciding = "evaluations" if summary.judge == "evaluation" else "training episodes"
        return f"{deciding} decide, not this"
    if summary.reached:
        return f"at the end; {threshold} was reached before"
    return f"at the end; too few in a row for {threshold}"


_JUDGES = {
    "training": "mean of the last episodes",
    "evaluation": "mean of an evaluation",
}


def returns_text(returns: Mapping[str, float], what: str) -> str:
    """Mean returns by name; of many, the range.

    >>> returns_text({"hunter_0": 3.0, "prey": -1.5}, "agents")
    'hunter_0 3.00, prey -1.50'
    >>> returns_text({f"agent_{i}": float(i) for i in range(20)}, "agents")
    '20 agents, from 0 (agent_0) to 19.0 (agent_19)'
    """
    if len(returns) <= MAX_NAMED:
        named = (f"{name} {units.mean_return(value)}" for name, value in returns.items())
        return ", ".join(named) or units.NONE
    low, high = (end(returns, key=returns.__getitem__) for end in (min, max))
    least, most = units.mean_return(returns[low]), units.mean_return(returns[high])
    return f"{len(returns)} {what}, from {least} ({low}) to {most} ({high})"


def shown_within_team(
    agents: Mapping[str, float], policies: Mapping[str, float]
) -> list[tuple[str, str]]:
    """The mean returns of policies and agents in words, each with what it is about; policies only
    if there are several, and not one for each agent."""
    has_groups = len(policies) > 1 and policies != agents
    named = (("policies", policies if has_groups else {}), ("agents", agents))
    return [(what, returns_text(returns, what)) for what, returns in named if returns]


def _within_team(summary: Summary) -> list[Row]:
    """Of a team: what the mean return does not say."""
    within = dict(shown_within_team(summary.agent_returns, summary.policy_returns))
    team, note = summary.team_return if summary.return_of else None, "means of the last episodes"
    return [
        Row("Team", units.mean_return(team), "sum over all agents", is_optional=True),
        *(
            Row(what.capitalize(), within.get(what, units.NONE), note, is_optional=True)
            for what in ("policies", "agents")
        ),
    ]


def _outcome(summary: Summary) -> list[Row]:
    mean, evaluation = summary.return_mean, summary.evaluation_return
    return [
        Row("Status", "not known here" if summary.stop_reason == UNKNOWN else summary.status),
        Row("Stopped by", summary.stop_reason, "what ended training"),
        Row("Threshold", threshold_text(summary), _JUDGES[summary.judge]),
        Row("Steps to threshold", units.count(summary.steps_to_threshold), "env steps collected"),
        Row(
            "Mean return",
            mean_at_end(mean, summary),
            f"of {summary.return_of}, last episodes"
            if summary.return_of
            else "of the last episodes",
            remark=remark_of_end(mean, summary),
        ),
        Row(
            "Evaluation",
            mean_at_end(evaluation, summary),
            "mean of the last one",
            is_optional=True,
            remark=remark_of_end(evaluation, summary, "evaluation"),
        ),
        *_within_team(summary),
        Row("Episodes", units.count(summary.episodes), "finished while training"),
        Row("Wall time", units.seconds(summary.wall_s), "from the start of training"),
    ]


def _throughput(summary: Summary) -> list[Row]:
    trained = units.rate(summary.trained_per_s, "samples")
    ratio = units.number(summary.replay_ratio, 2)
    return [
        Row("Collected", units.rate(summary.collect_per_s), "by the actors, steady window"),
        Row("Consumed", units.rate(summary.consume_per_s), "by the learner, each step once"),
        Row("Trained", trained, "by the learner, reuse counted"),
        Row("Replay ratio", ratio, "samples trained per env step", is_optional=True),
        Row("Balance P/C", units.number(summary.balance, 2), "collected ÷ consumed; 1 is even"),
        Row("Lag", units.lag(summary.lag), "versions: min, mean, p95, max"),
    ]


def _ledger(summary: Summary) -> list[Row]:
    return [
        Row("Env steps collected", units.count(summary.env_steps_collected)),
        Row(
            "Agent steps collected",
            units.count(summary.agent_steps_collected),
            "agents there, over env steps",
            is_optional=True,
        ),
        Row("Env steps consumed", units.count(summary.env_steps_consumed)),
        Row("Env steps dropped", units.count(summary.env_steps_dropped), "too old, or lost"),
        Row("Env steps in flight", units.count(summary.env_steps_in_flight), "at the end"),
        Row("Samples trained", units.count(summary.samples_trained), "reuse counted"),
        Row("Gradient updates", units.count(summary.updates)),
        Row("Weights version", units.count(summary.weights_version), "+1 per batch trained"),
    ]


def _layout(summary: Summary) -> list[Row]:
    return [
        Row("Environment", summary.env_id),
        Row("Algorithm", summary.algorithm),
        Row("Distribution policy", summary.policy),
        Row("Seed", str(summary.seed)),
        Row("Hosts", units.count(summary.num_hosts)),
        Row("Actors", units.count(summary.num_actors)),
        Row("Groups", units.count(summary.num_groups)),
        Row("Restarts", units.count(summary.restarts), "of roles, during the run"),
    ]
