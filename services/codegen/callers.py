"""Who may call which method of codegen (docs/zero-trust.md)."""

from chassis.callers import by, table

CALLERS = table(
    {
        "pulsegate.codegen.v1.CodegenService": {
            "GenerateClient": by("gateway"),
            "GetArtifact": by("gateway"),
        },
    }
)
