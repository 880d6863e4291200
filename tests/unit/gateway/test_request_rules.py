"""Which requests have an attack's shape, and which have not."""

import time

import pytest
from aiohttp.test_utils import make_mocked_request

from services.gateway import request_rules
from services.gateway.request_rules import RequestRules, rule_of_target
from tests.captured_logs import logged_by

PROJECT = "/api/v1/projects/0192f0c1-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    ("target", "rule"),
    [
        ("/api/v1/../../etc/passwd", "path_traversal"),
        ("/%2e%2e/etc/passwd", "path_traversal"),
        ("/docs%252f..%252fsecret", "path_traversal"),
        ("/docs/..", "path_traversal"),
        ("/%c0%ae%c0%ae/etc/passwd", "overlong_utf8"),
        ("/docs%00.html", "null_byte"),
        ("/.env", "secret_file"),
        ("/app/.git/config", "secret_file"),
        ("/wp-login.php", "other_software"),
        ("/CGI-BIN/test", "other_software"),
        ("/actuator/env", "other_software"),
        ("/shop/index.php?page=1", "script_file"),
        (f"{PROJECT}/ledger?metric=x'+OR+'1'%3D'1", "sql_injection"),
        (f"{PROJECT}/ledger?metric=1;drop%20table%20users", "sql_injection"),
        (f"{PROJECT}/metrics?pageToken=1+UNION+ALL+SELECT+2", "sql_injection"),
        ("/api/v1/projects?tenantId=%3Cscript%3Ealert(1)", "script_injection"),
        ("/api/v1/projects?tenantId=;cat+/etc/hosts", "command_injection"),
        ("/api/v1/projects?tenantId=../../etc/hosts", "file_inclusion"),
        ("/api/v1/projects?tenantId=a%00b", "null_byte"),
    ],
)
def test_what_an_attack_looks_like(target: str, rule: str) -> None:
    assert rule_of_target(target) == rule
    assert rule in request_rules.names()


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/docs",
        "/api/v1/metrics?key=pk_abcdefghijklmnopqrstuvwxyz",
        "/.well-known/jwks.json",
        f"{PROJECT}/metrics?pageSize=50&pageToken=eyJhZnRlciI6IjEifQ%3D%3D",
        f"{PROJECT}/ledger?from=2026-11-21T00:00:00Z&to=2026-11-22T00:00:00%2B01:00&metric=orders_and_selects_total",
        f"{PROJECT}/client?language=javascript&minify=false",
        "/sdk/v1/pk_abc.0123456789abcdef.js",
        "/prometheus/api/v1/query?query=rate(union_select_total%7Bpath%3D~%22..%2F..%2F%22%7D%5B5m%5D)+or+vector(1)",
        "/metrics/job/nightly.php/path/..%2Fetc/env/.env",
        "/metrics/job@base64/Li4/instance/a..b",
    ],
)
def test_what_is_meant_well(target: str) -> None:
    assert rule_of_target(target) is None


def test_what_is_no_utf8_is_looked_at_too() -> None:
    assert rule_of_target("/\udcff\udcfe") is None
    assert rule_of_target("/\udcff/../..") == "path_traversal"


#: What expressions that backtrack take longest for: what a rule begins with, many times or with much that it may skip.
ALMOST = ("%3C+", "union+", "'or+", ";drop+", "sleep(+", ";cat+", "'+or+", "../.", "%2e", ".php", "/.", "file:/", "a")


@pytest.mark.parametrize("piece", ALMOST)
@pytest.mark.parametrize("repeated", ["all of it", "its end"])
@pytest.mark.parametrize("before", ["/", "/?x="])
def test_no_target_is_looked_at_for_long(before: str, piece: str, repeated: str) -> None:
    """An expression in quadratic time would hold up everybody's requests, the longer the target the more."""
    long = piece * 2048 if repeated == "all of it" else piece + piece[-1] * 2048
    targets = [f"{before}{number}{long}" for number in range(20)]
    began = time.process_time()
    for target in targets:
        rule_of_target(target)
    assert (time.process_time() - began) / len(targets) < 0.002


def test_what_is_logged_of_an_attack_names_the_rule_and_nothing_that_its_sender_is_known_by() -> None:
    with logged_by(request_rules) as logged:
        RequestRules("detect").check(make_mocked_request("GET", "/.env"))
    assert [set(line) for line in logged] == [{"event", "log_level", "rule", "refused"}]
