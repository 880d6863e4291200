"""A shop's server that counts with the generated Python client. Prints what it has sent, as JSON.

Runs as a process of its own, with the generated `pulsegate_metrics.py` importable and the key in PULSEGATE_KEY:

    python server_traffic.py 500      takes 500 orders
"""

import importlib
import json
import os
import sys
from collections import Counter


def main(orders: int) -> None:
    """Sends, waits until everything is settled, prints `{"sent": [[name, labels, value], …], "lost": …}`."""
    metrics = importlib.import_module("pulsegate_metrics").Metrics(os.environ["PULSEGATE_KEY"])
    by_plan: Counter[str] = Counter()
    seconds_in_all = 0.0
    for order in range(orders):
        plan = "pro" if order % 3 == 0 else "free"
        by_plan[plan] += 1
        metrics.demo_orders_total(source="server", plan=plan)
        seconds = (order % 40) / 8  # eighths add up exactly
        seconds_in_all += seconds
        metrics.demo_checkout_duration_seconds(seconds, source="server")
        metrics.demo_open_carts(order % 17, source="server")
    metrics.close(timeout_seconds=30)

    source = {"source": "server"}
    sent = [
        *(("demo_orders_total", {**source, "plan": plan}, count) for plan, count in by_plan.items()),
        ("demo_checkout_duration_seconds_count", source, orders),
        ("demo_checkout_duration_seconds_sum", source, seconds_in_all),
        ("demo_open_carts", source, (orders - 1) % 17),
    ]
    json.dump({"sent": sent, "lost": metrics.stats.recorded - metrics.stats.accepted}, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]))
