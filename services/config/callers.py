"""Who may call which method of config (docs/zero-trust.md)."""

from chassis.callers import by, table

_BY_GATEWAY = by("gateway")

CALLERS = table(
    {
        "pulsegate.config.v1.DefinitionService": {
            "CreateMetric": _BY_GATEWAY,
            "ListMetrics": _BY_GATEWAY,
            "GetMetric": _BY_GATEWAY,
            "UpdateMetric": _BY_GATEWAY,
            "DeleteMetric": _BY_GATEWAY,
            "CheckMetric": _BY_GATEWAY,
            "GetProjectSettings": _BY_GATEWAY,
            "UpdateProjectSettings": _BY_GATEWAY,
        },
        "pulsegate.config.v1.DefinitionFeedService": {
            "WatchDefinitions": by("gateway", "receiver"),
            "GetProjectDefinitions": by("gateway", "codegen", "receiver"),
            "DefineFromData": by("receiver"),
        },
    }
)
