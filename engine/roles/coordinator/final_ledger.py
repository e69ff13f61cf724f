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
        unreported: Rows for env steps that dead actors certainly collected and did not report.
        uncounted: Buffers whose counts are lost, together with unreported rows of actors: more
            can have been collected than the ledger has.
        ledger: The final count.
        imbalance: Env steps that the counts of all roles leave unexplained.
    """

    unreported: tuple[Production, ...]
    uncounted: tuple[str, ...]
    ledger: Ledger
    imbalance: int


def close_ledger(
    membership: Membership, liveness: Liveness, groups: Groups, totals: RunTotals, now_s: float
) -> FinalLedger:
    """Makes the final count over all roles, and sets it in `totals`.

    If a role's counts were lost with it, the ledger has what is known, and balances because the
    remainder counts as in flight. A buffer also knows what its actors had sent.
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
