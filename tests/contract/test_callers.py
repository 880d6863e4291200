"""The lists of callers name every method of the contracts, and for each exactly the services whose code calls it."""

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from chassis.callers import INSIDE, Callers
from services.auth.callers import CALLERS as OF_AUTH
from services.codegen.callers import CALLERS as OF_CODEGEN
from services.config.callers import CALLERS as OF_CONFIG
from services.ingest.callers import CALLERS as OF_INGEST

CHECKOUT = Path(__file__).parents[2]

#: Each service's processes that open channels to others; the aggregator opens none.
CALLING = {"gateway": "gateway", "auth": "auth", "config": "config", "codegen": "codegen", "ingest": "receiver"}

TABLES = {"auth": OF_AUTH, "config": OF_CONFIG, "codegen": OF_CODEGEN, "ingest": OF_INGEST}


def services_of(package: str) -> Iterator[Any]:
    """The gRPC services that the contracts of one of our services declare."""
    for path in sorted((CHECKOUT / "contracts/pulsegate" / package / "v1").glob("*_pb2.py")):
        module = importlib.import_module(f"contracts.pulsegate.{package}.v1.{path.stem}")
        yield from module.DESCRIPTOR.services_by_name.values()


METHODS = {
    (service.name, method.name): f"/{service.full_name}/{method.name}"
    for package in TABLES
    for service in services_of(package)
    for method in service.methods
}


def called_in(source: str) -> Iterator[str]:
    """The methods that a module takes from stubs which it makes: `self._stub = XStub(…)`, then `self._stub.Method`."""
    if "Stub(" in source:
        for part in ast.parse(source).body:  # classes of one module name their stubs alike
            yield from _called_in(list(ast.walk(part)))


def _called_in(nodes: list[ast.AST]) -> Iterator[str]:
    stubs: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            made = ast.unparse(node.value.func).rpartition(".")[2]
            if made.endswith("Stub"):
                stubs.update({ast.unparse(target): made.removesuffix("Stub") for target in node.targets})
    for node in nodes:
        if isinstance(node, ast.Attribute) and (service := stubs.get(ast.unparse(node.value))):
            yield METHODS[service, node.attr]


@cache
def callers_in_code() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {method: set() for method in METHODS.values()}
    for folder, caller in CALLING.items():
        for path in (CHECKOUT / "services" / folder).rglob("*.py"):
            for method in called_in(path.read_text()):
                found[method].add(caller)
    section = (CHECKOUT / "docs/doors.md").read_text().split("\n## gRPC, for callers inside\n")[1].split("\n## ")[0]
    for (_, name), method in METHODS.items():
        if re.search(rf"\b{name}\b", section):
            found[method].add(INSIDE)
    return found


@pytest.mark.parametrize("package", TABLES)
def test_every_method_of_a_service_is_listed_and_no_other(package: str) -> None:
    declared = {f"/{service.full_name}/{method.name}" for service in services_of(package) for method in service.methods}
    assert set(TABLES[package]) == declared


@pytest.mark.parametrize("package", TABLES)
def test_whoever_calls_a_method_may_and_nobody_else(package: str) -> None:
    table: Callers = TABLES[package]
    called = callers_in_code()
    assert {method: set(callers) for method, callers in table.items()} == {method: called[method] for method in table}
