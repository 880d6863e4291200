"""Where requests may go that a tenant asks for: names are judged by what they stand for."""

from ipaddress import ip_network

import pytest

from services.auth.errors import ProviderAway, UnsafeAddress
from services.auth.outbound import Reach, reaching


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),  # noqa: S104 - judged, not bound
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_private_addresses_are_out_of_reach_in_whatever_form(address: str, allowed: bool) -> None:
    assert Reach(()).allows(address) is allowed


def test_an_operator_may_allow_a_network_and_no_more() -> None:
    reach = Reach((ip_network("10.0.0.0/8"), ip_network("127.0.0.1")))
    assert reach.require("https://10.0.0.1/x").host == "10.0.0.1"
    assert reach.require("http://127.0.0.1:8080").port == 8080
    for refused in ("http://10.0.0.1", "https://192.168.0.1", "http://127.0.0.2", "https://u:p@login.example.com"):
        with pytest.raises(UnsafeAddress):
            reach.require(refused)


@pytest.mark.parametrize("name", ["localhost", "127.1", "0x7f.1", "2130706433"])
async def test_a_name_that_stands_for_a_private_address_is_not_asked(name: str) -> None:
    async with reaching(()) as outbound:
        with pytest.raises((ProviderAway, UnsafeAddress)) as error:
            await outbound.get(f"https://{name}/.well-known/openid-configuration")
    assert any(reason in error.value.message for reason in ("PULSEGATE_SSO_PRIVATE_NETWORKS", "not a canonical"))


async def test_a_name_in_a_network_that_was_allowed_is_asked() -> None:
    async with reaching((ip_network("127.0.0.0/8"), ip_network("::1"))) as outbound:
        with pytest.raises(ProviderAway) as error:
            await outbound.get("https://localhost:1/")
    assert "PRIVATE_NETWORKS" not in error.value.message
