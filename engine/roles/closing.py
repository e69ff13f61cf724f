"""The last page of a run's books: what everyone counted, also what the dead had done.

Pure, like the coordinator that closes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.roles.fleet import Fleet
from engine.roles.groups import Groups
from engine.roles.roll_call import RollCall
from engine.roles.totals import RunTotals
from engine.trace.records import Ledger, Production


@dataclass(frozen=True)
class Closed:
    """What is left to write when everybody has stopped or is gone.

    Attributes:
        unreported: Rows for rollouts that a buffer had although their actor died before it said so.
        ledger: The final count.
        imbalance: Env steps that everyone's own counts leave unexplained.
    """

    unreported: tuple[Production, ...]
    ledger: Ledger
    imbalance: int


def close_books(
    roll: RollCall, fleet: Fleet, groups: Groups, totals: RunTotals, now_s: float
) -> Closed:
    """Counts once more, over all roles, and sets the final count of `totals`.

    Where a role took its counts with it, the ledger has as much as is known, and balances because
    what is in flight is what is left over. What an actor had sent, its buffer knows too.
    """
    unreported = tuple(fleet.unreported(roll.lost_collected, now_s))
    for row in unreported:
        totals.add(row, now_s)
    if roll.gone - fleet.absent:
        ledger = roll.ledger_of_the_rest(totals, now_s)
    else:
        ledger = totals.in_all(groups.final_ledger(roll.last_words, totals, now_s))
    totals.close_ledger(ledger)
    imbalance = ledger.collected - ledger.consumed - ledger.dropped - ledger.in_flight
    return Closed(unreported, ledger, imbalance)
