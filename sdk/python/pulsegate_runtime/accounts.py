"""What has become of every record() call, to the last one."""

from __future__ import annotations

import collections
import threading
from dataclasses import dataclass
from typing import Callable, Dict, Mapping

from .batches import Batch, Gathering
from .log import warn


@dataclass(frozen=True)
class Stats:
    """What became of the record() calls: recorded + adopted = accepted + rejected + all dropped + pending."""

    recorded: int  #: calls in this process, good or bad
    adopted: int  #: calls in batches that this process took over from ended ones and has settled
    accepted: int  #: taken by the server, durably
    rejected: int  #: refused by the server for good: not defined, a wrong label, …
    dropped: Mapping[str, int]  #: given up here, by reason (the README lists them)
    pending: int  #: gathered or queued, not settled yet
    queued_batches: int  #: sealed and waiting, adopted ones too
    queued_bytes: int  #: of their bodies
    retries: int  #: attempts that failed and are repeated
    disk_errors: int  #: failures of the queue directory; what they hit is kept in memory


class Accounts:
    """Counts calls, and knows which batches are unsettled. `lock` guards this, and the intake of the same client."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # taken again by a signal handler or finaliser that records
        self._counts: collections.Counter[str] = collections.Counter()
        self._dropped: collections.Counter[str] = collections.Counter()
        self._reported: collections.Counter[str] = collections.Counter()
        self._latest_fault = ""
        self._unsettled: Dict[int, None] = {}  # numbers of gatherings, ascending
        self._settled = threading.Condition(self.lock)

    def count(self, what: str) -> None:
        """One more in `recorded` or `retries`."""
        with self.lock:
            self._counts[what] += 1

    def drop_calls(self, calls: int, reason: str) -> None:
        """Give up calls that are in no batch."""
        with self.lock:
            self._dropped[reason] += calls

    def drop_invalid(self, fault: str) -> None:
        """Give up a call that makes no metric; the log is told what was wrong with the latest of them."""
        self.drop_calls(1, "invalid")
        self._latest_fault = fault

    def expect(self, gathering: Gathering) -> None:
        with self.lock:
            self._unsettled[gathering.number] = None

    def settle(self, batch: Batch, rejected: int = 0) -> None:
        self._close(batch, accepted=batch.calls - rejected, rejected=rejected)

    def drop(self, batch: Batch | Gathering, reason: str) -> None:
        with self.lock:
            self._dropped[reason] += batch.calls
            self._close(batch)

    def _close(self, batch: Batch | Gathering, **counts: int) -> None:
        with self.lock:
            self._counts.update(counts, adopted=0 if batch.number else batch.calls)
            self._unsettled.pop(batch.number, None)
            self._settled.notify_all()

    def wait_settled(self, below: int, timeout_seconds: float) -> bool:
        """True once every gathering with a number below this one is settled."""
        with self.lock:
            return self._settled.wait_for(lambda: next(iter(self._unsettled), below) >= below, timeout_seconds)

    def stats(self, *, queued_batches: int, queued_bytes: int, disk_errors: int) -> Stats:
        with self.lock:
            counts, dropped = self._counts, dict(self._dropped)
            settled = counts["accepted"] + counts["rejected"] + sum(dropped.values())
            return Stats(
                recorded=counts["recorded"],
                adopted=counts["adopted"],
                accepted=counts["accepted"],
                rejected=counts["rejected"],
                dropped=dropped,
                pending=counts["recorded"] + counts["adopted"] - settled,
                queued_batches=queued_batches,
                queued_bytes=queued_bytes,
                retries=counts["retries"],
                disk_errors=disk_errors,
            )

    def report_drops(self, on_drop: Callable[[str, int], object] | None) -> None:
        """Tell the log and the host application what has been dropped since the last report."""
        with self.lock:
            new, self._reported = self._dropped - self._reported, self._dropped.copy()
        for reason, calls in new.items():
            detail = f" (the latest: {self._latest_fault})" if reason == "invalid" else ""
            warn(f"drop {reason}", "dropped %d record() calls: %s%s", calls, reason, detail)
            try:
                if on_drop:
                    on_drop(reason, calls)
            except Exception as error:  # noqa: BLE001 - the host's own fault must not end our thread
                warn("on_drop", "on_drop raised %s", type(error).__name__)
