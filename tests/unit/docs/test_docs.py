"""The documents say what the code does: every error code and every setting stands in them, and no other."""

import ast
import dataclasses
import operator
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from chassis import errors, settings
from deploy.local.services import CANARY, SERVICES
from services.gateway.errors import CODES
from tests.console_blocks import commands, fault
from tests.promql_selectors import metrics_in_code

CHECKOUT = Path(__file__).parents[3]
_CODE = re.compile(r"[A-Z]+(?:_[A-Z]+)*")
_SETTING_ROW = re.compile(r"^\| `(PULSEGATE_[A-Z0-9_]+)` \| (.*?) \| (.*?) \|", re.MULTILINE)
_MAKE = re.compile(r"(?:`|\$ |console\n)make ([a-z-]+)")
_LINK = re.compile(r"\]\(([^):]+)\)")
_DOCUMENTS = [*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md"), *(CHECKOUT / "sdk").glob("*/*.md")]
_SETTING = re.compile(r"^\| `(PULSEGATE_[A-Z0-9_]+)` \|", re.MULTILINE)


def _calls() -> Iterator[ast.Call]:
    for folder in ("chassis", "services"):
        for path in (CHECKOUT / folder).rglob("*.py"):
            yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def _first_text(call: ast.Call) -> str:
    first = call.args[0] if call.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def _codes_in_code() -> set[str]:
    kinds = errors.PulsegateError.__subclasses__()
    classes: list[type[errors.PulsegateError]] = [errors.PulsegateError, *kinds, errors.AnswerTooLarge]
    codes = {error.code for error in classes}
    for path in (CHECKOUT / "services").rglob("errors.py"):
        codes |= set(re.findall(r"code\s*=\s*\"([A-Z_]+)\"", path.read_text()))
    for call in _calls():
        codes |= {
            keyword.value.value
            for keyword in call.keywords
            if keyword.arg == "code"
            and isinstance(keyword.value, ast.Constant)
            and isinstance(keyword.value.value, str)
            and _CODE.fullmatch(keyword.value.value)
        }
        if isinstance(call.func, ast.Name) and call.func.id == "Fault":
            codes.add(_first_text(call))
    return codes


def test_every_error_code_is_described_and_no_other() -> None:
    described = set(
        re.findall(r"^\|(?: \d+ \|)? `([A-Z_]+)` \|", (CHECKOUT / "docs/errors.md").read_text(), re.MULTILINE)
    )
    assert described == _codes_in_code()


def test_the_openapi_document_has_the_codes_of_requests_by_their_status() -> None:
    described: dict[int, set[str]] = {}
    for status, code in re.findall(
        r"^\| (\d+) \| `([A-Z_]+)` \|", (CHECKOUT / "docs/errors.md").read_text(), re.MULTILINE
    ):
        described.setdefault(int(status), set()).add(code)
    in_document = {status: set(codes) for status, codes in CODES.items()}
    in_document[400] -= {"BATCH_REJECTED"}  # described where it is usual: 422
    assert in_document == described


def test_every_setting_is_described_and_no_other() -> None:
    read = {_first_text(call) for call in _calls() if isinstance(call.func, ast.Name) and call.func.id == "setting"} - {
        ""
    }
    described = set(_SETTING.findall((CHECKOUT / "docs/operations.md").read_text()))
    assert read <= described, f"not described: {sorted(read - described)}"
    known = read | {"PULSEGATE_DATA", "PULSEGATE_MTLS", "PULSEGATE_CANARY"}
    assert described <= known, f"described and never read: {sorted(described - known)}"


def test_every_setting_says_who_reads_it_and_what_holds_without_it() -> None:
    read_by = {
        "PULSEGATE_POSTGRES_OWNER_DSN": ["migrate", "prune-audit"],
        "PULSEGATE_AUDIT_RETENTION_DAYS": ["prune-audit"],
    }
    required = {"PULSEGATE_POSTGRES_OWNER_DSN": True}
    processes = {service.name: service.settings for service in (CANARY, *SERVICES)}
    for name, of_reader in processes.items():
        for field in filter(operator.attrgetter("metadata"), dataclasses.fields(of_reader)):
            read_by.setdefault(field.metadata["variable"], []).append(name)
            required[field.metadata["variable"]] = field.metadata["default"] is settings.REQUIRED
    for variable, readers, default in _SETTING_ROW.findall((CHECKOUT / "docs/operations.md").read_text()):
        named = {reader.strip("` ") for reader in readers.split(",")} - {"make run"}
        expected = read_by.get(variable, [])
        if variable == "PULSEGATE_SERVICE_TOKEN":
            assert named == {"all but the canary"}
        else:
            assert named == ({"all"} if len(expected) == len(processes) else set(expected)), variable
        assert default.strip(), variable
        assert (default == "required") is required.get(variable, False), variable


def test_the_front_page_leads_to_every_document() -> None:
    linked = set(re.findall(r"\]\(docs/([^)#/]+\.md)", (CHECKOUT / "README.md").read_text()))
    assert linked == {path.name for path in (CHECKOUT / "docs").glob("*.md")}


def test_links_between_documents_lead_somewhere() -> None:
    for document in _DOCUMENTS:
        for target, _, heading in (link.partition("#") for link in _LINK.findall(document.read_text())):
            found = document.parent / target if target else document
            assert found.exists(), f"{document} links to {target}"
            assert not heading or heading in _headings(found), f"{document} links to {target}#{heading}"


def _headings(document: Path) -> set[str]:
    """As what links name them."""
    lines = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: path.name)
def test_a_shell_takes_what_a_document_has_somebody_type(document: Path) -> None:
    assert {command: fault(command) for command in commands(document) if fault(command)} == {}


def test_what_is_to_be_watched_is_exposed() -> None:
    names = re.findall(r"^\| `(pulsegate_\w+)", (CHECKOUT / "docs/operations.md").read_text(), re.MULTILINE)
    assert names
    assert set(names) <= set(metrics_in_code())


def test_what_documents_have_make_do_are_targets() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    named = {name for path in _DOCUMENTS for name in _MAKE.findall(path.read_text())}
    assert named <= targets
