"""Plans, addresses and origins."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.domain import PLANS, bare_origin, client_address, limited_address, quotas_of

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("plan", "writes", "reads", "ingestion", "in_all", "expensive"),
    [
        ("free", 100, 1_000, 100, 1_000, 10),
        ("basic", 1_000, 10_000, 1_000, 10_000, 100),
        ("professional", 5_000, 50_000, 10_000, 100_000, 1_000),
        ("enterprise", 10_000, 100_000, 100_000, 1_000_000, 10_000),
    ],
)
def test_what_each_plan_allows(plan: str, writes: int, reads: int, ingestion: int, in_all: int, expensive: int) -> None:
    quotas = quotas_of(plan)
    assert (quotas.writes.limit, quotas.writes.period_seconds) == (writes, 3600)
    assert (quotas.reads.limit, quotas.reads.period_seconds) == (reads, 3600)
    assert (quotas.expensive.limit, quotas.expensive.period_seconds) == (expensive, 3600)
    assert (quotas.ingestion.limit, quotas.ingestion.period_seconds) == (ingestion, 60)
    assert (quotas.ingestion_in_all.limit, quotas.ingestion_in_all.period_seconds) == (in_all, 60)


@pytest.mark.parametrize("plan", PLANS)
def test_the_ingestion_limit_can_be_set_for_every_plan(plan: str) -> None:
    quotas = quotas_of(plan, 7)
    assert (quotas.ingestion.limit, quotas.ingestion_in_all.limit) == (7, 70)


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "expected"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        # Nobody but a trusted proxy is believed.
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.1.2.3", ["198.51.100.1"], "198.51.100.1"),
        # What the client wrote itself stands to the left of what the proxy saw.
        ("10.1.2.3", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        ("10.1.2.3", ["1.1.1.1", "198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.1.2.3", ["not an address"], "10.1.2.3"),
        ("10.1.2.3", ["198.51.100.1, not an address"], "10.1.2.3"),
        ("10.1.2.3", [""], "10.1.2.3"),
        ("10.1.2.3", ["10.4.4.4"], "10.4.4.4"),
        ("::ffff:10.1.2.3", ["198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        # Some proxies write the port too.
        ("10.1.2.3", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.1.2.3", ["[2001:db8::7]:4711", "[fd00::2]"], "2001:db8::7"),
        ("", ["198.51.100.1"], ""),
    ],
)
def test_who_sent_a_request(peer: str, forwarded_for: list[str], expected: str) -> None:
    assert client_address(peer, forwarded_for, TRUSTED) == expected


@given(st.lists(st.text(max_size=40), max_size=4))
def test_an_untrusted_sender_cannot_choose_its_address(forwarded_for: list[str]) -> None:
    assert client_address("203.0.113.9", forwarded_for, TRUSTED) == "203.0.113.9"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
    ],
)
def test_an_ipv6_network_shares_its_limits(address: str, expected: str) -> None:
    assert limited_address(address) == expected


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("https://shop.example", True),
        ("http://127.0.0.1:8080", True),
        ("http://[::1]:8080", True),
        ("https://shop.example/", False),
        ("https://shop.example/path", False),
        ("ftp://shop.example", False),
        ("https://user@shop.example", False),
        ("https://shop.example:\uff18\uff10", False),
        ("null", False),
        ("*", False),
    ],
)
def test_what_an_origin_is(text: str, bare: bool) -> None:
    assert bare_origin(text) is bare
