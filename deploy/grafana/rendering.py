"""From panels to what Grafana imports, by Grafana's own schema."""

import json

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
)

from deploy.grafana.queries import Page, Panel, Query

#: Chosen on the page: the Prometheus that scrapes Pulsegate.
_SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
#: Grafana's grid is 24 wide.
_NUMBER_WIDTH, _NUMBER_HEIGHT = 6, 4
_GRAPH_WIDTH, _GRAPH_HEIGHT = 8, 7


def rendered(page: Page) -> str:
    """The dashboard as JSON; the same page is always the same text."""
    others = dashboard.DashboardLink("Pulsegate").type(DashboardLinkType.DASHBOARDS).tags(["pulsegate"])
    built = (
        dashboard.Dashboard(page.title)
        .uid(page.name)
        .tags(["pulsegate"])
        .time("now-3h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .variables([dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus"), _namespaces()])
        .links([others.as_dropdown(True).keep_time(True)])
    )
    for panel in page.panels:
        built.with_panel(_number(panel) if panel.is_number else _graph(panel))
    return json.dumps(built.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _namespaces() -> dashboard.QueryVariable:
    """Where one Prometheus scrapes several releases; also right where nothing has a namespace."""
    return (
        dashboard.QueryVariable("namespace")
        .label("Namespace")
        .datasource(_SOURCE)
        .query('label_values(pulsegate_dependency_up{tenant_id=""}, namespace)')
        .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def _number(panel: Panel) -> stat.Panel:
    built = stat.Panel().title(panel.title).description(panel.description).unit(panel.unit).datasource(_SOURCE)
    return built.targets(_targets(panel)).span(_NUMBER_WIDTH).height(_NUMBER_HEIGHT)


def _graph(panel: Panel) -> timeseries.Panel:
    built = timeseries.Panel().title(panel.title).description(panel.description).unit(panel.unit).datasource(_SOURCE)
    return built.targets(_targets(panel)).min(0).fill_opacity(10).span(_GRAPH_WIDTH).height(_GRAPH_HEIGHT)


def _targets(panel: Panel) -> list[Builder[Dataquery]]:
    # The quantiles of a panel are of one histogram: each of them would ask for the same exemplars.
    leading_to_traces = next((query for query in panel.queries if "_bucket{" in query.expression), None)
    return [
        _target(chr(ord("A") + number), query, with_exemplars=query is leading_to_traces)
        for number, query in enumerate(panel.queries)
    ]


def _target(ref_id: str, query: Query, *, with_exemplars: bool) -> prometheus.Dataquery:
    expression = query.expression.replace('tenant_id=""', 'tenant_id="",namespace=~"$namespace"')
    target = prometheus.Dataquery().ref_id(ref_id).expr(expression).legend_format(query.legend)
    return target.exemplar(True) if with_exemplars else target
