"""`python -m deploy.grafana` writes every dashboard to where the chart and Compose take them from."""

import sys

from deploy.grafana.panels import PAGES
from deploy.grafana.rendering import rendered
from deploy.local.layout import DASHBOARDS

if __name__ == "__main__":
    for page in PAGES:
        (DASHBOARDS / f"{page.name}.json").write_text(rendered(page))
    sys.stdout.write(f"{len(PAGES)} dashboards are in {DASHBOARDS}\n")
