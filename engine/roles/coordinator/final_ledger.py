"""The final ledger of a run: the counts of all roles, including those that died.

Pure, like the coordinator that closes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.roles.coordinator.groups import Groups
from engine.roles.coordinator.liveness import Liveness
from engine.roles.coordinator.membership import Membership
from engine.roles.coordinator.totals import RunTotals
from engine.trace.records import Ledger, Production


@dataclass(frozen=True)
class FinalLedger:
    """What is left to write when all roles have stopped or are gone.

    Attributes:
        unreported: Rows for what actors that died had collected for certain and not reported.
        uncounted: Buffers whose counts are lost, together with what actors had yet to report: more
            may have been collected than the ledger has.
        ledger: The final count.
        imbalance: Env steps that everyone's own counts leave unexplained.
    """

    unreported: tuple[Production, ...]
    uncounted: tuple[str, ...]
    ledger: Ledger
    imbalance: int


def close_ledger(
    membership: Membership, liveness: Liveness, groups: Groups, totals: RunTotals, now_s: float
) -> FinalLedger:
    """Counts once more, over all roles, and sets the final count of `totals`.

    Where a role took its counts with it, the ledger has as much as is known, and balances because
    what is in flight is what is left over. What an actor had sent, its buffer knows too.
    """
    unreported = liveness.unreported(membership.lost_collected, now_s)
    for row in unreported:
        totals.add(row, now_s)
    uncounted = []
    for gap in groups.gaps(membership.last_words, totals, liveness.absent):
        if gap.env_steps:
            row = liveness.untold(gap.actors, gap.env_steps, now_s)
            totals.add(row, now_s)
            unreported.append(row)
        is_silent = gap.actors[0] not in membership.last_words or liveness.has_lost(gap.actors)
        if gap.env_steps or (is_silent and not gap.is_counted):
            uncounted.append(gap.buffer)
    ledger = groups.final_ledger(membership.last_words, totals, liveness.absent, now_s)
    ledger = totals.in_all(ledger)
    totals.close_ledger(ledger)
    imbalance = ledger.collected - ledger.consumed - ledger.dropped - ledger.in_flight
    return FinalLedger(tuple(unreported), tuple(uncounted), ledger, imbalance)
