"""Who may call which method: a table beside each service's servicers. What it does not name is refused."""

from collections.abc import Mapping

#: The full names of methods, as gRPC has them (`/package.Service/Method`), each with the services that may call it.
Callers = Mapping[str, frozenset[str]]

#: What runs beside the services and sends metrics without the gateway (docs/doors.md, "gRPC, for callers inside").
INSIDE = "inside"


def by(*callers: str) -> frozenset[str]:
    """The services that may call a method."""
    return frozenset(callers)


def table(services: Mapping[str, Mapping[str, frozenset[str]]]) -> Callers:
    """The callers of each method, from those of each service's methods."""
    return {
        f"/{service}/{method}": callers for service, methods in services.items() for method, callers in methods.items()
    }
