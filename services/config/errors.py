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


class DefinitionsFull(Invalid):
    """All definitions of the installation together would be larger than they may be."""

    code = "DEFINITIONS_FULL"

    def __init__(self, most: int) -> None:
        super().__init__(
            f"All metric definitions of this Pulsegate take {most} bytes, the most that they may"
            " (PULSEGATE_DEFINITIONS_BYTES). Ask its operators; what is defined goes on.",
            details={"limit": most},
        )


class PartOfTenantFull(Invalid):
    """The definitions of a tenant would be larger than its part of what all tenants have left."""

    code = "METRIC_LIMIT_REACHED"

    def __init__(self, needed: int, most: int) -> None:
        super().__init__(
            f"The tenant's metric definitions would take {needed} bytes, and {most} are the most that they may take"
            " while all tenants leave so little of PULSEGATE_DEFINITIONS_BYTES. Delete one first, name no values of a"
            " label that has many, or ask the operators.",
            details={"limit": most},
        )


class TooManyBytes(Invalid):
    """The definitions of a project, or of a tenant, would be larger, all together, than they may be."""

    code = "METRIC_LIMIT_REACHED"

    def __init__(self, whose: str, needed: int, most: int) -> None:
        super().__init__(
            f"The {whose}'s metric definitions would take {needed} bytes, and {most} are the most that they may take."
            " Delete one first, or name no values of a label that has many.",
            details={"limit": most},
        )


class TooManyDeleted(Invalid):
    """The tenant has deleted so many definitions that it can make none before some of them are forgotten."""

    code = "DELETED_METRIC_LIMIT_REACHED"

    def __init__(self, taken: int, most: int) -> None:
        super().__init__(
            f"The metric definitions that the tenant has deleted within eight days take {taken} bytes, and {most} are"
            " the most that they may take for new ones to be made. Wait until the oldest are forgotten, change"
            " definitions rather than delete them and make them anew, or ask the operators"
            " (PULSEGATE_DEFINITIONS_BYTES).",
            details={"limit": most},
        )
