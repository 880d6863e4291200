"""Errors of the config service beyond those of the chassis."""

from chassis.errors import Invalid


class TooManyMetrics(Invalid):
    """The project has as many definitions as it may have."""

    code = "METRIC_LIMIT_REACHED"

    def __init__(self, most: int) -> None:
        super().__init__(
            f"The project already has {most} metric definitions, the most it may have"
            " (PULSEGATE_CONFIG_METRICS_PER_PROJECT). Delete one first.",
            details={"limit": most},
        )
