"""`python -m services.ingest receiver | aggregator | migrate`."""

import sys

from chassis import runner
from services.ingest import app
from services.ingest.settings import AggregatorSettings, ReceiverSettings

match sys.argv[1:]:
    case ["receiver"]:
        runner.run("ingest-receiver", ReceiverSettings, app.receiver)
    case ["aggregator"]:
        runner.run("ingest-aggregator", AggregatorSettings, app.aggregator)
    case ["migrate"]:
        runner.migrate("ingest", app.MIGRATIONS)
    case _:
        sys.exit("usage: python -m services.ingest receiver | aggregator | migrate")
