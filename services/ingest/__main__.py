"""`python -m services.ingest receiver | aggregator | migrate | regroup`."""

import sys

from chassis import logs, runner
from services.ingest import app, regrouping
from services.ingest.settings import AggregatorSettings, ReceiverSettings

match sys.argv[1:]:
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
        sys.exit("usage: python -m services.ingest receiver | aggregator | migrate | regroup")
