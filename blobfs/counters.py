"""Numbers that only grow, added to by many threads without a lock."""

from collections import Counter, defaultdict
from threading import get_ident


class Counters:
    """Sums by name. Each thread adds to a share of its own, so nothing is lost and nobody waits.

    Shares go by thread ids, which the system uses again: libfuse makes a new Python thread for every
    request, but there are never more shares than there were threads at once.
    """

    def __init__(self) -> None:
        self._shares: dict[int, defaultdict[str, int]] = {}

    def add(self, name: str, amount: int = 1) -> None:
        """Add to a sum. Costs a fraction of a microsecond."""
        thread = get_ident()
        share = self._shares.get(thread)
        if share is None:
            share = self._shares[thread] = defaultdict(int)
        share[name] += amount

    def totals(self) -> Counter[str]:
        """Return all sums; a name that nobody added to counts as 0."""
        totals: Counter[str] = Counter()
        for share in list(self._shares.values()):
            totals.update(dict(share))  # a copy, made in one step: its thread goes on adding
        return totals
