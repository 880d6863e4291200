"""The names of what travels beside a gRPC call."""

CORRELATION_ID_KEY = "pulsegate-correlation-id"
#: A principal signed by auth (`chassis.principals`).
PRINCIPAL_KEY = "pulsegate-principal"
#: A secret that all services of one installation share: the internal ports answer nobody else.
SERVICE_TOKEN_KEY = "pulsegate-service-token"  # noqa: S105 - the name of a header
