"""An LDAP directory: OpenLDAP's slapd from Debian, unpacked without root, on ports of its own.

Fixture `directory` (session): a `Directory`, with TLS and without, which tests add people and groups to.
"""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chassis.ids import uuid7
from deploy.local.debian import DebianUnavailable, fetched_program, libraries
from deploy.local.layout import CHECKOUT, Ports
from deploy.local.programs import NotReady, Program, port_is_free
from tests.certificates import self_signed
from tests.suite_servers import fetching_into
from tests.waiting import wait_for

BASE_DN = "dc=example,dc=com"
PEOPLE, GROUPS = f"ou=people,{BASE_DN}", f"ou=groups,{BASE_DN}"
SERVICE_DN, SERVICE_PASSWORD = f"cn=pulsegate,{BASE_DN}", "bind password only for tests"
PASSWORD = "a password of the directory"
_ROOT_DN, _ROOT_PASSWORD = f"cn=root,{BASE_DN}", "root password only for tests"
_FOLDER = CHECKOUT / ".tools" / "slapd"

_CONFIGURATION = """
include {fetched}/etc/ldap/schema/core.schema
include {fetched}/etc/ldap/schema/cosine.schema
include {fetched}/etc/ldap/schema/inetorgperson.schema
modulepath {fetched}/usr/lib/ldap
moduleload back_mdb
moduleload memberof
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
access to attrs=userPassword by anonymous auth by * none
access to * by users read by anonymous auth
database mdb
suffix "{base_dn}"
rootdn "{root_dn}"
rootpw "{root_password}"
directory {data}
dbnosync
overlay memberof
"""


@dataclass(frozen=True)
class Directory:
    """A directory that runs."""

    port: int
    tls_port: int
    #: In PEM, of itself.
    certificate: str
    folder: Path = field(repr=False)

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"ldaps://127.0.0.1:{self.tls_port}"

    def add_person(self, login: str = "", **attributes: str) -> str:
        """With a password and an address, unless told otherwise; the login."""
        login = login or f"u{uuid7().hex}"
        said = {"mail": f"{login}@example.com", "sn": login, "cn": login, "userPassword": PASSWORD, **attributes}
        self.add(f"uid={login},{PEOPLE}", objectClass="inetOrgPerson", **said)
        return login

    def add_group(self, name: str, *logins: str) -> str:
        """The group's DN."""
        dn = f"cn={name},{GROUPS}"
        # A group has somebody always.
        members = [SERVICE_DN, *(f"uid={login},{PEOPLE}" for login in logins)]
        self._change("\n".join([f"dn: {dn}", "changetype: add", "objectClass: groupOfNames", f"cn: {name}"]
                               + [f"member: {member}" for member in members]))  # fmt: skip
        return dn

    def add(self, dn: str, **attributes: str) -> None:
        lines = [f"{name}: {value}" for name, value in attributes.items()]
        self._change("\n".join([f"dn: {dn}", "changetype: add", *lines]))

    def remove_from_group(self, group_dn: str, login: str) -> None:
        self._change(f"dn: {group_dn}\nchangetype: modify\ndelete: member\nmember: uid={login},{PEOPLE}")

    def _change(self, ldif: str) -> None:
        run = [str(self.folder / "usr" / "bin" / "ldapmodify"), "-x", "-H", self.url, "-D", _ROOT_DN]
        subprocess.run(
            [*run, "-w", _ROOT_PASSWORD],
            input=ldif + "\n",
            text=True,
            check=True,
            timeout=60,
            env=_environment(self.folder),
        )


@pytest.fixture(scope="session")
def directory(lasting_port_blocks: Callable[[], Ports], data_folder: Path) -> Iterator[Directory]:
    fetched = _fetched()
    ports = lasting_port_blocks()
    port, tls_port = ports.public, ports.operations("gateway")
    folder = data_folder / "slapd"
    certificate, configuration = _configured(folder, fetched)
    program = Program(
        name="slapd",
        argv=(str(fetched / "usr/sbin/slapd"), "-d", "0", "-f", str(configuration),
              "-h", f"ldap://127.0.0.1:{port} ldaps://127.0.0.1:{tls_port}"),
        log=folder / "slapd.log",
        ports={"ldap": port, "ldaps": tls_port},
        probe=lambda: _probe(tls_port),
        environment=_environment(fetched),
    )  # fmt: skip
    process = program.start()
    try:
        wait_for(lambda: not port_is_free(tls_port), within_seconds=60, what="the directory is ready")
        started = Directory(port, tls_port, certificate.read_text(), fetched)
        _fill(started)
        yield started
    finally:
        process.kill()
        process.wait()


def _configured(folder: Path, fetched: Path) -> tuple[Path, Path]:
    data = folder / "data"
    data.mkdir(parents=True)
    certificate, key = self_signed(folder, "directory")
    configuration = folder / "slapd.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            fetched=fetched, certificate=certificate, key=key, data=data,
            base_dn=BASE_DN, root_dn=_ROOT_DN, root_password=_ROOT_PASSWORD,
        )
    )  # fmt: skip
    return certificate, configuration


def _fill(directory: Directory) -> None:
    directory.add(BASE_DN, objectClass="domain", dc="example")
    for dn in (PEOPLE, GROUPS):
        directory.add(dn, objectClass="organizationalUnit", ou=dn.split(",")[0].removeprefix("ou="))
    directory.add(SERVICE_DN, objectClass="person", cn="pulsegate", sn="pulsegate", userPassword=SERVICE_PASSWORD)


def _fetched() -> Path:
    try:
        with fetching_into(_FOLDER):
            fetched_program("usr/sbin/slapd", _FOLDER, "slapd", "ldap-utils")
    except DebianUnavailable as unavailable:
        pytest.skip(f"{unavailable}; tests of directories need it")
    return _FOLDER


def _environment(fetched: Path) -> Mapping[str, str]:
    return {**os.environ, "LD_LIBRARY_PATH": libraries(fetched)}


def _probe(port: int) -> None:
    if port_is_free(port):
        raise NotReady("nothing listens")
