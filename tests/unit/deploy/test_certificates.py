"""The certificates of an embedded stack: whose they are, who may read them, and when there are new ones."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chassis.mutual_tls import MutualTls
from deploy.local.backing import backing_servers
from deploy.local.certificates import DOMAIN, NAMES, Certificates
from deploy.local.layout import DataFolder, Ports
from deploy.local.services import require_valid_settings, service_programs

PORTS = Ports(9000)


class Wall:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def certificates(tmp_path: Path, wall: Wall) -> Certificates:
    return Certificates(tmp_path / "certificates", wall)


def tls(certificates: Certificates, name: str) -> MutualTls:
    told = certificates.settings(name)
    certificate, key, authorities = (Path(told[f"PULSEGATE_MTLS_{file}_PATH"]) for file in ("CERTIFICATE", "KEY", "CA"))
    return MutualTls(certificate, key, authorities, DOMAIN)


def test_each_service_is_told_of_its_own_files_alone(tmp_path: Path) -> None:
    data = DataFolder(tmp_path)
    data.make()
    backing = backing_servers(data, PORTS, None, Certificates(data.certificates))
    require_valid_settings(backing, PORTS, data, {})
    for program in service_programs(backing, PORTS, data, {}):
        told = [value for name, value in program.environment.items() if name.startswith("PULSEGATE_MTLS_")]
        mine = str(data.certificates / program.name)
        assert all(value.startswith(mine) or value == DOMAIN for value in told)
        assert len(told) == (0 if program.name == "aggregator" else 4)


def test_nobody_but_their_owner_reads_them(certificates: Certificates, tmp_path: Path) -> None:
    found = list((tmp_path / "certificates").rglob("*"))
    assert len(found) == len(NAMES) * 4
    assert all(path.stat().st_mode & 0o077 == 0 for path in found)


def test_they_are_good_for_a_day_and_renewed_long_before(certificates: Certificates, wall: Wall) -> None:
    auth = tls(certificates, "auth")
    first = auth.material
    assert first.expires_at - wall.now <= timedelta(days=1)
    wall.now += timedelta(hours=7)
    certificates.renew()
    auth.renew()
    assert auth.material is first
    wall.now += timedelta(hours=1)
    certificates.renew()
    auth.renew()
    assert auth.material.expires_at == first.expires_at + timedelta(hours=8)
    assert auth.material.authorities == first.authorities
