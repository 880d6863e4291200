"""Every error of code generation, with its stable code."""

from chassis.errors import Internal, Invalid, NotFound, Unavailable


class RuntimeMissing(Unavailable):
    """The runtime of a language is not in the SDK directory (the browser's has to be built)."""


class RuntimeNotJoinable(Internal):
    """The runtime's modules cannot share one file; see joining.py."""


class DefinitionNotRenderable(Internal):
    """A definition that the config service should never have let through."""


class ClientTooLarge(Invalid):
    """A client of so many definitions, or of so many values of labels, that it would be too large."""

    code = "CLIENT_TOO_LARGE"

    def __init__(self, most: int) -> None:
        super().__init__(
            f"The client would be larger than {most} bytes, the most that one may be."
            " Name no values of a label that has many, or a pattern instead.",
            details={"limit": most},
        )


class ArtifactNotFound(NotFound):
    """Never generated for this project, or pruned."""
