"""Secrets out of HashiCorp Vault or OpenBao: version 2 of the key-value engine, signed in by AppRole."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import hvac
import msgspec
import requests
from hvac.exceptions import Forbidden, InvalidPath
from hvac.exceptions import VaultError as RefusedByVault

_TIMEOUT_SECONDS = 5.0


class VaultError(Exception):
    """Vault does not give what it is asked for; the message says why, never a value."""


@dataclass(frozen=True)
class Reference:
    """Where a secret is: `vault:secret/pulsegate/auth#dsn` is the field `dsn` of `pulsegate/auth` in `secret`."""

    mount: str
    path: str
    field: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError."""
        where, _, field = text.removeprefix("vault:").partition("#")
        mount, _, path = where.partition("/")
        if not (mount and path and field):
            raise ValueError("must be vault:mount/path#field")
        return cls(mount, path, field)

    def __str__(self) -> str:
        return f"vault:{self.mount}/{self.path}#{self.field}"


class _Token(msgspec.Struct):
    client_token: str
    lease_duration: Annotated[int, msgspec.Meta(ge=0)]


class _SignedIn(msgspec.Struct):
    """What a sign-in and a renewal answer."""

    auth: _Token


class _Version(msgspec.Struct):
    data: dict[str, Any]


class _Secret(msgspec.Struct):
    """What a reading answers."""

    data: _Version


class Vault:
    """A client that signs in by itself and keeps its token alive. Its methods block; one thread at a time."""

    def __init__(
        self, address: str, role_id: str, secret_id: Callable[[], str], authorities: Path | None = None
    ) -> None:
        """`secret_id`: the present one, asked for with each sign-in; `authorities`: a PEM file with those that Vault's
        certificate may be of; None: the system's."""
        verify: bool | str = True if authorities is None else str(authorities)
        self._client = hvac.Client(url=address, verify=verify, timeout=_TIMEOUT_SECONDS)
        self._role_id = role_id
        self._secret_id = secret_id
        #: By the monotonic clock: when the token is to be renewed, and when it ends.
        self._renew_at = self._ends_at = 0.0

    def read(self, reference: Reference) -> str:
        """The newest version of a secret. Raises VaultError."""
        try:
            self._keep_signed_in()
            try:
                return self._field(reference)
            except Forbidden:  # the token may have been revoked
                self._sign_in()
                return self._field(reference)
        except InvalidPath as error:
            raise VaultError(f"Vault has no {reference}") from error
        # AttributeError: hvac takes the text of an error for an object, whatever it is.
        except (msgspec.ValidationError, AttributeError) as error:
            raise VaultError(
                f"what answers for {reference} is no Vault, or no key-value engine of version 2"
            ) from error
        except (RefusedByVault, requests.RequestException) as error:
            raise VaultError(f"Vault does not give {reference} ({type(error).__name__})") from error

    def _field(self, reference: Reference) -> str:
        answer = self._client.secrets.kv.v2.read_secret_version(
            path=reference.path, mount_point=reference.mount, raise_on_deleted_version=True
        )
        value = msgspec.convert(answer, _Secret).data.data.get(reference.field)
        if not isinstance(value, str):
            raise VaultError(f"Vault has no text at {reference}")
        return value

    def _keep_signed_in(self) -> None:
        now = time.monotonic()
        if now >= self._ends_at:
            self._sign_in()
        elif now >= self._renew_at:
            try:
                self._hold(self._client.auth.token.renew_self())
            except RefusedByVault:  # not renewable, or for the last time
                self._sign_in()

    def _sign_in(self) -> None:
        self._hold(self._client.auth.approle.login(role_id=self._role_id, secret_id=self._secret_id(), use_token=False))

    def _hold(self, answer: object) -> None:
        """Goes on with the token of the answer for as long as it lives; one without an end lives for a day."""
        token = msgspec.convert(answer, _SignedIn).auth
        self._client.token = token.client_token
        seconds = token.lease_duration or 86_400
        now = time.monotonic()
        self._renew_at, self._ends_at = now + seconds / 2, now + seconds
