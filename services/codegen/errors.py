"""Every error of code generation, with its stable code."""

from chassis.errors import Internal, NotFound, Unavailable


class RuntimeMissing(Unavailable):
    """The runtime of a language is not in the SDK directory (the browser's has to be built)."""


class RuntimeNotJoinable(Internal):
    """The runtime's modules cannot share one file; see joining.py."""


class DefinitionNotRenderable(Internal):
    """A definition that the config service should never have let through."""


class ArtifactNotFound(NotFound):
    """Never generated for this project, or pruned."""
