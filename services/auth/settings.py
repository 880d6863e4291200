"""What auth reads from its environment."""

import base64
import binascii
from dataclasses import dataclass
from email.utils import parseaddr
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from chassis.settings import PeerSettings, integer, networks, one_of, postgres_url, setting, url
from services.auth.domain import PLANS, email_fault
from services.auth.mailers import SmtpServer

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


def sender(text: str) -> str:
    """Parses the sender of mails: an address, perhaps with a name."""
    if email_fault(parseaddr(text)[1]) or not text.isprintable():
        raise ValueError("must be an address such as Pulsegate <pulsegate@example.com>")
    return text


def console_url(text: str) -> str:
    """Parses the address of the console's pages."""
    return str(url("http", "https")(text)).rstrip("/")


def addresses(text: str) -> tuple[str, ...]:
    """Parses e-mail addresses with commas between them."""
    found = tuple(address.strip() for address in text.split(","))
    if any(map(email_fault, found)):
        raise ValueError("must be e-mail addresses with commas between them")
    return found


@dataclass(frozen=True, kw_only=True)
class Settings(PeerSettings):
    """See chassis.settings; secrets may be given as NAME_FILE."""

    grpc_port: int = setting("PULSEGATE_GRPC_PORT", parse=integer(1, 65535))
    dsn: str = setting("PULSEGATE_POSTGRES_DSN", parse=postgres_url, secret=True)
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
    #: The server that takes mails.
    smtp: SmtpServer | None = setting("PULSEGATE_SMTP_URL", parse=SmtpServer.parse, default=None, secret=True)
    #: Where mails are kept as files instead, for development.
    mail_folder: Path | None = setting("PULSEGATE_MAIL_FOLDER", parse=Path, default=None)
    mail_sender: str = setting("PULSEGATE_MAIL_SENDER", parse=sender, default="Pulsegate <no-reply@pulsegate.invalid>")
    #: Who may set plans and suspend tenants, once they have verified these addresses.
    operators: tuple[str, ...] = setting("PULSEGATE_OPERATORS", parse=addresses, default=())
    #: Whose pages take the tokens that are mailed; None: mails name the token and its route.
    console_url: str | None = setting("PULSEGATE_CONSOLE_URL", parse=console_url, default=None)
    #: Private networks in which identity providers may be asked; one on this machine may speak plain HTTP.
    sso_private_networks: tuple[IPv4Network | IPv6Network, ...] = setting(
        "PULSEGATE_SSO_PRIVATE_NETWORKS", parse=networks, default=()
    )
    #: How long who signed in through an identity provider stays signed in at most.
    sso_session_hours: int = setting("PULSEGATE_SSO_SESSION_HOURS", parse=integer(1, 2160), default=12)
    #: Connections to Postgres, those of verdicts and of the feed not counted.
    most_connections: int = setting("PULSEGATE_POSTGRES_CONNECTIONS", parse=integer(2, 200), default=10)

    @property
    def verdict_connections(self) -> int:
        """Those that check credentials, which takes a millisecond: enough where gateways have just started and know no
        credential, and more where there is more of everything."""
        return max(4, self.most_connections // 3)

    @property
    def tenant_connections(self) -> int:
        """Of `most_connections` those that calls about what is a tenant's may have, reads too, since changes of it wait
        for each other; the rest is for signing in and for auth's own tasks."""
        return max(1, self.most_connections * 4 // 5)

    @property
    def addresses_can_be_verified(self) -> bool:
        """Whether mails reach people; without a mail server nobody could verify an address."""
        return self.smtp is not None
