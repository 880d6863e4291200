"""The codes of second factors: time-based one-time passwords (RFC 6238), and recovery codes that stand in for them."""

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyotp

from services.auth.domain import UserId
from services.auth.master_key import MasterKey

STEP_SECONDS = 30
RECOVERY_CODES = 10
#: So many wrong codes in a row close a second factor for a while.
MOST_FAILURES = 5
CLOSED_FOR = timedelta(minutes=15)

_DIGITS = 6
#: A device's clock may be so many steps off.
_DRIFT_STEPS = 1
#: Base32 without what looks alike. 16 of them are 80 bits.
_RECOVERY_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_RECOVERY_CHARACTERS = 16
_GROUP_CHARACTERS = 4


@dataclass(frozen=True, kw_only=True)
class SecondFactor:
    """A shared secret and what is known of the codes that were shown."""

    sealed_secret: bytes
    confirmed: bool
    #: Time step of the newest code that was taken.
    last_step: int
    #: Wrong codes since the last good one.
    failures: int
    closed_until: datetime | None


class OneTimeCodes:
    """Makes secrets and codes, and tells whether a code is one."""

    def __init__(self, master_key: MasterKey) -> None:
        self._master_key = master_key

    def new_secret(self, user_id: UserId) -> tuple[str, bytes]:
        """160 random bits in base32, and the same encrypted for this user."""
        secret = pyotp.random_base32()
        return secret, self._master_key.seal(secret.encode(), owner=_owner(user_id))

    def uri(self, secret: str, email: str) -> str:
        """The address that authenticator apps read from a QR code."""
        return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name="Pulsegate")

    def step_of(self, factor: SecondFactor, user_id: UserId, code: str, now: datetime) -> int | None:
        """The time step that a code belongs to; None where it is wrong, or no newer than one that was taken."""
        totp = pyotp.TOTP(self._master_key.unseal(factor.sealed_secret, owner=_owner(user_id)).decode())
        this_step = int(now.timestamp()) // STEP_SECONDS
        for step in range(this_step - _DRIFT_STEPS, this_step + _DRIFT_STEPS + 1):
            if step > factor.last_step and hmac.compare_digest(totp.generate_otp(step).encode(), code.encode()):
                return step
        return None

    def recovery_codes(self) -> Sequence[str]:
        """New ones, written in groups."""
        return [_new_recovery_code() for _ in range(RECOVERY_CODES)]

    def recovery_digest(self, code: str) -> bytes:
        """By which a recovery code is known at rest, however its groups and letters are written."""
        return self._master_key.recovery_digest(code.replace("-", "").lower().encode())


def is_totp(code: str) -> bool:
    """Whether a code has the form of a one-time password."""
    return len(code) == _DIGITS and code.isascii() and code.isdigit()


def _owner(user_id: UserId) -> str:
    return f"second factor of {user_id}"


def _new_recovery_code() -> str:
    groups = _RECOVERY_CHARACTERS // _GROUP_CHARACTERS
    return "-".join(
        "".join(secrets.choice(_RECOVERY_ALPHABET) for _ in range(_GROUP_CHARACTERS)) for _ in range(groups)
    )
