"""People, tenants, roles, projects and sessions: their values, and the rules about them that need nothing else."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from enum import Enum, IntEnum
from typing import Generic, NewType, TypeVar

from chassis import pages
from chassis.emails import MOST_EMAIL_CHARACTERS
from chassis.errors import Forbidden, Invalid

UserId = NewType("UserId", str)
TenantId = NewType("TenantId", str)
ProjectId = NewType("ProjectId", str)
KeyId = NewType("KeyId", str)
SessionId = NewType("SessionId", str)
MailId = NewType("MailId", str)
InvitationId = NewType("InvitationId", str)

#: Rate limit plans, from the smallest.
PLANS = ("free", "basic", "professional", "enterprise")

#: Of one tenant at a time, by its plan.
MOST_PROJECTS = {"free": 10, "basic": 50, "professional": 200, "enterprise": 1_000}

#: Of one tenant, alive at a time, by its plan: one statement revokes them all for whoever takes their account back.
#: Of those that are dead as many again are kept, the latest.
MOST_KEYS = {"free": 1_000, "basic": 2_000, "professional": 5_000, "enterprise": 10_000}

#: For so long after a rotation a spent refresh token is answered with the same successor: a lost answer is no attack.
REFRESH_GRACE = timedelta(seconds=10)

#: How long tokens that were mailed are good for.
PASSWORD_RESET_LIFE = timedelta(minutes=30)
EMAIL_VERIFICATION_LIFE = timedelta(hours=24)
INVITATION_LIFE = timedelta(days=7)

#: Tokens of one purpose that are mailed to one address within `TOKENS_PERIOD`.
MOST_TOKENS = 5
TOKENS_PERIOD = PASSWORD_RESET_LIFE

#: Tenants to which others have added one person who was not asked.
MOST_UNASKED_MEMBERSHIPS = 100

#: Of one tenant at a time.
MOST_OPEN_INVITATIONS = 100

#: Mails with invitations within `INVITATION_MAILS_PERIOD`: to one address, whoever invites, and of one tenant.
MOST_INVITATION_MAILS_TO_ADDRESS = 5
MOST_INVITATION_MAILS_OF_TENANT = 200
INVITATION_MAILS_PERIOD = timedelta(days=1)

#: Leaked keys of one tenant of which its admins are mailed within `LEAK_MAILS_PERIOD`; the audit log has them all.
MOST_LEAK_MAILS = 10
LEAK_MAILS_PERIOD = timedelta(days=1)

#: Of the large parts of what a page holds: as many pages as there may be calls have room in the memory of a process.
MOST_PAGE_BYTES = 1 << 20

_MOST_NAME_CHARACTERS = 100
_MOST_LIMIT = 1_000_000_000
_MOST_DEVICE_CHARACTERS = 200
# Without what RFC 5322 calls specials: they stand between addresses, or in quotes that hardly any mail server takes.
# Without encoded words (RFC 2047): the header of a mail would make other characters of them, line ends among them.
_ATOM = r"[^@\s.\"(),:;<>\[\\\]]"
_EMAIL = re.compile(rf"(?!.*=\?)(?:{_ATOM}|\.){{1,64}}@{_ATOM}+(?:\.{_ATOM}+)+")


class Role(IntEnum):
    """What a member may do in a tenant; a higher role may all that a lower one may."""

    VIEWER = 1
    EDITOR = 2
    ADMIN = 3
    OWNER = 4

    @property
    def word(self) -> str:
        """As it is stored and spoken of."""
        return self.name.lower()

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes of a person in this role."""
        return frozenset(scope for scope, least in _LEAST_ROLES.items() if self >= least)

    @classmethod
    def of(cls, word: str) -> "Role":
        return cls[word.upper()]


_LEAST_ROLES: Mapping[str, Role] = {
    "config:read": Role.VIEWER,
    "query:read": Role.VIEWER,
    "usage:read": Role.VIEWER,
    "config:write": Role.EDITOR,
    "keys:write": Role.ADMIN,
    "members:write": Role.ADMIN,
    "audit:read": Role.ADMIN,
    "tenant:write": Role.OWNER,
}


@dataclass(frozen=True, kw_only=True)
class User:
    """A person."""

    id: UserId
    #: As its owner wrote it.
    email: str


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """An organisation."""

    id: TenantId
    name: str


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an operator has set for one tenant in place of its plan's rate limits. 0: the plan's."""

    writes_per_hour: int = 0
    reads_per_hour: int = 0
    expensive_per_hour: int = 0
    ingestion_per_minute: int = 0

    def told(self) -> dict[str, int]:
        """Those that are set, as the audit log has them."""
        named = {
            "writesPerHour": self.writes_per_hour,
            "readsPerHour": self.reads_per_hour,
            "expensivePerHour": self.expensive_per_hour,
            "ingestionPerMinute": self.ingestion_per_minute,
        }
        return {name: limit for name, limit in named.items() if limit}


@dataclass(frozen=True, kw_only=True)
class OperatedTenant:
    """An operator's view of a tenant."""

    tenant: Tenant
    #: Its rate limit plan.
    plan: str
    created_at: datetime
    #: None unless nobody may use it at present.
    suspended_at: datetime | None
    limits: Limits


@dataclass(frozen=True, kw_only=True)
class Membership:
    """A person's own view of one of their tenants."""

    tenant: Tenant
    role: Role
    #: The tenant's rate limit plan.
    plan: str
    limits: Limits
    #: By an operator.
    suspended: bool
    #: Whether the person has founded the tenant or accepted its invitation; else somebody has added them.
    consented: bool


@dataclass(frozen=True, kw_only=True)
class Member:
    """A tenant's view of one of its people."""

    user: User
    role: Role
    created_at: datetime
    #: Whether the person has shown that they read mail at their address.
    email_verified: bool
    #: As in `Membership`.
    consented: bool


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """Somebody with an e-mail address who is asked to become a member."""

    id: InvitationId
    tenant_id: TenantId
    #: As whoever invites wrote it.
    email: str
    role: Role
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class Project:
    """What definitions, keys and series belong to."""

    id: ProjectId
    tenant_id: TenantId
    name: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Session:
    """A family of refresh tokens."""

    id: SessionId
    user_id: UserId
    revoked_at: datetime | None
    #: Beyond which no refresh renews it; None: there is no such moment.
    not_after: datetime | None = None

    def expires_at(self, now: datetime, life: timedelta) -> datetime:
        """When a refresh token expires that is given out now and would live so long."""
        return now + life if self.not_after is None else min(now + life, self.not_after)


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where a session is used from, as its owner is shown it."""

    #: What the client says it is.
    name: str = ""
    address: str = ""

    @classmethod
    def of(cls, name: str, address: str) -> "Device":
        """From what a client sent: without what cannot be printed, and cut to a bearable length."""
        printable = ["".join(filter(str.isprintable, text))[:_MOST_DEVICE_CHARACTERS] for text in (name, address)]
        return cls(name=printable[0], address=printable[1])


@dataclass(frozen=True, kw_only=True)
class LiveSession:
    """A session that has not ended, as its owner sees it."""

    id: SessionId
    device: Device
    created_at: datetime
    #: When it began or was last renewed by its refresh token.
    last_used_at: datetime
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class RefreshToken:
    """One refresh token, known by the SHA-256 of its text."""

    token_hash: bytes
    session_id: SessionId
    user_id: UserId
    expires_at: datetime
    #: When it was exchanged for its successor.
    spent_at: datetime | None


class Presented(Enum):
    """What to do about a refresh token that somebody presents; the values are those of the metric."""

    ROTATE = "rotated"
    REPEAT = "repeated"
    REUSED = "reused"
    REFUSE = "refused"


def presented(token: RefreshToken, session: Session, now: datetime) -> Presented:
    """Judges a refresh token: spent ones are repeated within the grace and betray a theft after it."""
    if session.revoked_at is not None or token.expires_at <= now:
        return Presented.REFUSE
    if token.spent_at is None:
        return Presented.ROTATE
    return Presented.REPEAT if now - token.spent_at <= REFRESH_GRACE else Presented.REUSED


def check_grant(actor: Role, *, current: Role | None, wanted: Role | None) -> None:
    """Whether a member may change somebody's role from `current` to `wanted`; None is "no member".

    Raises Forbidden: it takes an admin, nobody grants above their own role or touches a member above it.
    """
    if actor < Role.ADMIN:
        raise Forbidden("Managing members takes the role admin.")
    if max(current or actor, wanted or actor) > actor:
        raise Forbidden(f"As {actor.word} you can neither grant a role above your own nor touch a member above you.")


def best_plan(memberships: Sequence[Membership], default: str) -> str:
    """The plan that limits a person's calls about their own account: the largest of their tenants'."""
    return max((membership.plan for membership in memberships), key=PLANS.index, default=default)


def limits_fault(limits: Limits) -> str | None:
    """What is wrong with an operator's limits, or None."""
    if all(0 <= limit <= _MOST_LIMIT for limit in astuple(limits)):
        return None
    return f"must be from 0 to {_MOST_LIMIT}"


def email_fault(email: str) -> str | None:
    """What is wrong with an e-mail address, or None. Only what would never work is refused."""
    if len(email) > MOST_EMAIL_CHARACTERS or not _EMAIL.fullmatch(email) or not email.isprintable():
        return f"must be an e-mail address of at most {MOST_EMAIL_CHARACTERS} characters"
    return None


def name_fault(name: str) -> str | None:
    """What is wrong with the name of a tenant, a project or a key, or None."""
    if not name.strip() or len(name) > _MOST_NAME_CHARACTERS or not name.isprintable():
        return f"must be 1 to {_MOST_NAME_CHARACTERS} printable characters"
    return None


def require_name(name: str, field: str = "name") -> str:
    """The name without blanks around it. Raises Invalid."""
    if fault := name_fault(name):
        raise Invalid.fields({field: fault})
    return name.strip()


_Item = TypeVar("_Item")


def beginning(items: Sequence[_Item], most: int, bytes_of: Callable[[_Item], int]) -> Sequence[_Item]:
    """The first items, `most` at most; they end with the one that has brought them to `MOST_PAGE_BYTES`."""
    held = 0
    for count, item in enumerate(items[:most], start=1):
        held += bytes_of(item)
        if held >= MOST_PAGE_BYTES:
            return items[:count]
    return items[:most]


@dataclass(frozen=True, kw_only=True)
class Page(Generic[_Item]):
    """A part of a list that is sorted by id."""

    items: Sequence[_Item]
    #: Where the next part begins; empty at the end.
    next_token: str


@dataclass(frozen=True, kw_only=True)
class PageRequest:
    """Which part of a list is wanted."""

    size: int
    #: The last id of the part before.
    after: str

    @classmethod
    def parse(cls, size: int, token: str) -> "PageRequest":
        """From what a caller sent. Raises Invalid."""
        return cls(size=pages.page_size(size), after=pages.id_before(token))

    def cut(
        self,
        items: Sequence[_Item],
        id_of: Callable[[_Item], str],
        bytes_of: Callable[[_Item], int] = lambda _small: 0,
    ) -> Page[_Item]:
        """The page from items of which one more than `size` were asked for; see `beginning` where they may be large."""
        shown = beginning(items, self.size, bytes_of)
        return Page(items=shown, next_token=pages.token_after(id_of(shown[-1])) if len(items) > len(shown) else "")
