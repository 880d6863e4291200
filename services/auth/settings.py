"""What auth reads from its environment."""

import base64
import binascii
from dataclasses import dataclass

from chassis.settings import ServiceSettings, integer, one_of, setting, url
from services.auth.domain import PLANS

_MASTER_KEY_BYTES = 32


def master_key(text: str) -> bytes:
    """Parses 32 bytes of base64url, with or without padding."""
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _MASTER_KEY_BYTES:
        raise ValueError(f"must be {_MASTER_KEY_BYTES} bytes in base64url")
    return key


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings):
    """See chassis.settings; secrets may be given as NAME_FILE."""

    grpc_port: int = setting("PULSEGATE_GRPC_PORT", parse=integer(1, 65535))
    dsn: str = setting("PULSEGATE_POSTGRES_DSN", parse=url("postgresql", "postgres"), secret=True)
    #: Encrypts signing keys and publishable keys at rest, derives the successors of refresh tokens.
    master_key: bytes = setting("PULSEGATE_AUTH_MASTER_KEY", parse=master_key, secret=True)
    #: The plan of new tenants.
    default_plan: str = setting("PULSEGATE_DEFAULT_PLAN", parse=one_of(*PLANS), default="enterprise")
    access_token_seconds: int = setting("PULSEGATE_ACCESS_TOKEN_SECONDS", parse=integer(1, 86_400), default=900)
    #: Life of the principals that travel between services; a cached verdict is asked anew before it ends.
    principal_seconds: int = setting("PULSEGATE_PRINCIPAL_SECONDS", parse=integer(10, 600), default=120)
    refresh_token_days: int = setting("PULSEGATE_REFRESH_TOKEN_DAYS", parse=integer(1, 90), default=7)
    #: How long one key signs before the next takes over.
    signing_key_days: int = setting("PULSEGATE_SIGNING_KEY_DAYS", parse=integer(1, 365), default=30)
    #: bcrypt's work factor: each step doubles the time that a password costs.
    bcrypt_cost: int = setting("PULSEGATE_BCRYPT_COST", parse=integer(12, 16), default=12)
    #: Passwords that are worked on at the same time, each on a thread of its own.
    bcrypt_threads: int = setting("PULSEGATE_BCRYPT_THREADS", parse=integer(1, 64), default=2)
    #: Passwords that may wait for a thread; more are turned away with 503.
    bcrypt_queue: int = setting("PULSEGATE_BCRYPT_QUEUE", parse=integer(1, 1000), default=16)
    #: Connections to Postgres, the feed's own not counted.
    most_connections: int = setting("PULSEGATE_POSTGRES_CONNECTIONS", parse=integer(2, 200), default=10)
