"""`python -m services.ingest receiver` and `… aggregator` serve; `… migrate` brings the schema up to date, `… regroup`
gives the log another number of lanes.
"""

import sys

from chassis import logs, runner
from services.ingest import app, regrouping
from services.ingest.settings import AggregatorSettings, ReceiverSettings


def main(arguments: list[str]) -> None:
    """Runs what the arguments name."""
    match arguments:
        case ["receiver"]:
            runner.run("ingest-receiver", ReceiverSettings, app.receiver)
        case ["aggregator"]:
            runner.run("ingest-aggregator", AggregatorSettings, app.aggregator)
        case ["migrate"]:
            runner.migrate("ingest", app.MIGRATIONS)
        case ["regroup"]:
            settings = runner.read_settings("ingest regroup", AggregatorSettings)
            logs.configure("ingest-regroup", settings.log_level)
            sys.stdout.write(f"{runner.run_loop(regrouping.regroup(settings))}\n")
        case _:
            raise SystemExit("usage: python -m services.ingest receiver | aggregator | migrate | regroup")


if __name__ == "__main__":
    main(sys.argv[1:])
