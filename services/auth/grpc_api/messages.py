"""Between the domain and its protobuf messages."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from chassis.errors import Invalid
from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from contracts.pulsegate.auth.v1 import invitations_pb2, limits_pb2, operators_pb2, own_account_pb2
from services.auth import domain
from services.auth.keys import ApiKey, KeyChange, KeyKind, KeyRequest
from services.auth.operations.sessions import IssuedTokens

_ROLES: Mapping[pb.Role.ValueType, domain.Role] = {
    pb.ROLE_VIEWER: domain.Role.VIEWER,
    pb.ROLE_EDITOR: domain.Role.EDITOR,
    pb.ROLE_ADMIN: domain.Role.ADMIN,
    pb.ROLE_OWNER: domain.Role.OWNER,
}
_ROLE_NUMBERS = {role: number for number, role in _ROLES.items()}
_KINDS: Mapping[pb.KeyKind.ValueType, KeyKind] = {
    pb.KEY_KIND_PUBLISHABLE: KeyKind.PUBLISHABLE,
    pb.KEY_KIND_SECRET: KeyKind.SECRET,
}
_KIND_NUMBERS = {kind.value: number for number, kind in _KINDS.items()}


def timestamp(moment: datetime | None) -> Timestamp | None:
    """None stays unset."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def read_role(number: pb.Role.ValueType) -> domain.Role:
    """Raises Invalid for anything but a known role."""
    role = _ROLES.get(number)
    if role is None:
        raise Invalid.fields({"role": "must be owner, admin, editor or viewer"})
    return role


def role(value: domain.Role | None) -> pb.Role.ValueType:
    """None is the unspecified one."""
    return pb.ROLE_UNSPECIFIED if value is None else _ROLE_NUMBERS[value]


def read_device(device: pb.Device) -> domain.Device:
    """Where a session is used from; empty where nothing was said."""
    return domain.Device.of(device.name, device.address)


def read_key_request(request: pb.CreateKeyRequest) -> KeyRequest:
    """Raises Invalid for a moment that no calendar has."""
    return KeyRequest(
        name=request.name,
        kind=_KINDS.get(request.kind),
        scopes=list(request.scopes),
        allowed_origins=list(request.allowed_origins),
        expires_at=_read_expiry(request),
    )


def read_key_change(request: pb.UpdateKeyRequest) -> KeyChange:
    """Raises Invalid for a moment that no calendar has."""
    return KeyChange(
        name=request.name,
        allowed_origins=list(request.allowed_origins),
        expires_at=_read_expiry(request),
        never_expires=request.never_expires,
    )


def _read_expiry(request: pb.CreateKeyRequest | pb.UpdateKeyRequest) -> datetime | None:
    try:
        return request.expires_at.ToDatetime(UTC) if request.HasField("expires_at") else None
    except (ValueError, OverflowError) as error:
        raise Invalid.fields({"expiresAt": "must be a time of RFC 3339"}) from error


def user(value: domain.User) -> pb.User:
    return pb.User(id=value.id, email=value.email)


def tenant(value: domain.Tenant) -> pb.Tenant:
    return pb.Tenant(id=value.id, name=value.name)


def membership(value: domain.Membership) -> pb.Membership:
    return pb.Membership(
        tenant=tenant(value.tenant),
        role=_ROLE_NUMBERS[value.role],
        plan=value.plan,
        limits=limits(value.limits),
        suspended=value.suspended,
    )


def limits(value: domain.Limits) -> limits_pb2.Limits | None:
    """None where nothing is set."""
    return None if value == domain.Limits() else limits_pb2.Limits(**asdict(value))


def read_limits(value: limits_pb2.Limits) -> domain.Limits:
    return domain.Limits(
        writes_per_hour=value.writes_per_hour,
        reads_per_hour=value.reads_per_hour,
        expensive_per_hour=value.expensive_per_hour,
        ingestion_per_minute=value.ingestion_per_minute,
    )


def member(value: domain.Member) -> pb.Member:
    return pb.Member(
        user=user(value.user),
        role=_ROLE_NUMBERS[value.role],
        created_at=timestamp(value.created_at),
        email_verified=value.email_verified,
    )


def operated_tenant(value: domain.OperatedTenant) -> operators_pb2.OperatedTenant:
    return operators_pb2.OperatedTenant(
        id=value.tenant.id,
        name=value.tenant.name,
        plan=value.plan,
        created_at=timestamp(value.created_at),
        suspended_at=timestamp(value.suspended_at),
        limits=limits(value.limits),
    )


def invitation(value: domain.Invitation) -> invitations_pb2.Invitation:
    return invitations_pb2.Invitation(
        id=value.id,
        email=value.email,
        role=_ROLE_NUMBERS[value.role],
        created_at=timestamp(value.created_at),
        expires_at=timestamp(value.expires_at),
    )


def project(value: domain.Project) -> pb.Project:
    return pb.Project(id=value.id, tenant_id=value.tenant_id, name=value.name, created_at=timestamp(value.created_at))


def key(value: ApiKey) -> pb.Key:
    return pb.Key(
        id=value.id,
        name=value.name,
        kind=_KIND_NUMBERS[value.kind],
        scopes=value.scopes,
        prefix=value.prefix,
        allowed_origins=value.allowed_origins,
        created_at=timestamp(value.created_at),
        expires_at=timestamp(value.expires_at),
        revoked_at=timestamp(value.revoked_at),
        last_used_at=timestamp(value.last_used_at),
    )


def session(value: IssuedTokens) -> pb.Session:
    return pb.Session(access_token=value.access_token, refresh_token=value.refresh_token, expires_in=value.expires_in)


def own_session(value: domain.LiveSession, current_id: str) -> own_account_pb2.OwnSession:
    """`current_id` is the session of the call."""
    return own_account_pb2.OwnSession(
        id=value.id,
        device=value.device.name,
        address=value.device.address,
        created_at=timestamp(value.created_at),
        last_used_at=timestamp(value.last_used_at),
        expires_at=timestamp(value.expires_at),
        current=value.id == current_id,
    )
