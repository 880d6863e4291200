"""The audit log's chains: how entries are tied together, what signed heads say, and what shows that they were touched.

Each entry's hash covers the hash before it, so nothing in a chain can be edited, removed, added or moved without
changing every hash after it. Heads are signed with a key that comes from the master key and is not in the database, and
only where the chain goes on from the head that was signed before: who rewrites what was signed cannot have it signed.
What was rewritten or cut off together with its signatures shows against any head that was kept elsewhere: in a process
that has signed one, in an export, or in the log.
"""

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from chassis.audit import canonical
from chassis.principals import ISSUER
from services.auth.domain import TenantId
from services.auth.master_key import MasterKey

#: Whose chain takes what belongs to no tenant.
PLATFORM = TenantId("00000000-0000-0000-0000-000000000000")

#: The hash before the first entry.
GENESIS = bytes(32)

_AUDIENCE = "pulsegate-audit"
_TYPE = "pulsegate-audit-head"
_ANCHOR_AUDIENCE = "pulsegate-audit-anchor"


@dataclass(frozen=True, kw_only=True)
class SealedEntry:
    """One entry in its place."""

    #: 1, 2, 3, …
    sequence: int
    id: str
    #: "" where it is not about one project.
    project_id: str
    #: Canonical JSON (`chassis.audit.document`).
    document: str
    previous_hash: bytes
    hash: bytes


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where a chain ends, or ended once; as an anchor: where what was pruned of it ended."""

    tenant_id: TenantId
    #: 0 for an empty chain.
    sequence: int
    hash: bytes


def hash_of(tenant_id: TenantId, sequence: int, previous_hash: bytes, document: str) -> bytes:
    """What `append_audit_entry` in the database computes."""
    place = uuid.UUID(tenant_id).bytes + sequence.to_bytes(8, "big", signed=True)
    return hashlib.sha256(previous_hash + place + document.encode()).digest()


class HeadSignature:
    """Signs heads, and tells genuine ones."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        members: dict[str, str] = OKPAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
        thumbprint = hashlib.sha256(canonical({name: members[name] for name in ("crv", "kty", "x")}).encode())
        #: The public half (RFC 8037), named by the beginning of its thumbprint (RFC 7638); it never changes.
        self.public_jwk = {**members, "use": "sig", "alg": "EdDSA", "kid": f"audit-{thumbprint.hexdigest()[:16]}"}

    @classmethod
    def of(cls, master_key: MasterKey) -> "HeadSignature":
        """The same for as long as there is the master key."""
        return cls(Ed25519PrivateKey.from_private_bytes(master_key.audit_seed))

    def sign(self, head: Head, now: datetime) -> str:
        """A JWS with the head's tenant (`tid`), sequence (`seq`), hash (`hash`, hex) and the moment (`iat`)."""
        return self._stated(_AUDIENCE, head, now)

    def read(self, signed_head: str) -> Head | None:
        """The head that was signed; None where the signature is not ours."""
        return self._read(_AUDIENCE, signed_head)

    def sign_anchor(self, anchor: Head, now: datetime) -> str:
        """A JWS as of a head, which no head is taken for: what came up to here was pruned with leave."""
        return self._stated(_ANCHOR_AUDIENCE, anchor, now)

    def read_anchor(self, signed_anchor: str) -> Head | None:
        """The anchor that was signed; None where the signature is not ours."""
        return self._read(_ANCHOR_AUDIENCE, signed_anchor)

    def _stated(self, audience: str, head: Head, now: datetime) -> str:
        claims = {"iss": ISSUER, "aud": audience, "tid": head.tenant_id, "seq": head.sequence, "hash": head.hash.hex()}
        headers = {"typ": _TYPE, "kid": self.public_jwk["kid"]}
        return jwt.encode(
            {**claims, "iat": int(now.timestamp())}, self._private_key, algorithm="EdDSA", headers=headers
        )

    def _read(self, audience: str, text: str) -> Head | None:
        try:
            claims = jwt.decode(
                text,
                self._private_key.public_key(),
                algorithms=["EdDSA"],
                audience=audience,
                issuer=ISSUER,
                options={"require": ["tid", "seq", "hash"], "verify_iat": False},
            )
        except jwt.PyJWTError:
            return None
        return Head(tenant_id=TenantId(claims["tid"]), sequence=claims["seq"], hash=bytes.fromhex(claims["hash"]))


def signed_at(signed_head: str) -> datetime:
    """When a head was signed whose signature is known to be good: every entry that it covers is older."""
    claims = jwt.decode(signed_head, options={"verify_signature": False})
    return datetime.fromtimestamp(claims["iat"], UTC)


class ChainCheck:
    """Reads one chain from its first entry, or the one that follows `after`, to its last and tells what does not fit.

    `exported` are hashes by sequence that exports say. Signed heads are told a part at a time, before the entries that
    they are about.
    """

    def __init__(self, tenant_id: TenantId, exported: Mapping[int, bytes], after: Head | None = None) -> None:
        self._tenant_id = tenant_id
        self._exported = exported
        #: Those that signed heads say of the entries that come next.
        self._signed: Mapping[int, bytes] = {}
        #: The furthest entry that was signed or exported.
        self._latest = max(exported, default=0)
        #: Of the entry that was read last, as it must be.
        self._hash = after.hash if after else GENESIS
        self.entries = after.sequence if after else 0

    def faults_of_heads(self, heads: Sequence[Head]) -> Iterator[str]:
        """What is wrong with the signed heads that come next: with those of the entries up to the last one of them."""
        self._signed = {head.sequence: head.hash for head in heads}
        self._latest = max([self._latest, *self._signed])
        for head in heads:
            if self._exported.get(head.sequence, head.hash) != head.hash:
                yield f"the signed head of entry {head.sequence} contradicts an export"

    def faults_of(self, entry: SealedEntry) -> Iterator[str]:
        """What is wrong with the entry that comes next."""
        expected = self.entries + 1
        if entry.sequence != expected:
            yield f"entry {expected} is missing: entry {entry.sequence} follows entry {self.entries}"
        if entry.previous_hash != self._hash:
            yield f"entry {entry.sequence} does not follow the entry before it"
        if entry.hash != hash_of(self._tenant_id, entry.sequence, entry.previous_hash, entry.document):
            yield f"entry {entry.sequence} was edited: its hash does not fit"
        elif not says_the_same(entry.document, entry.id, self._tenant_id, entry.project_id):
            yield f"entry {entry.sequence} was edited: its columns and its document differ"
        signed = self._signed.get(entry.sequence, entry.hash)
        if self._exported.get(entry.sequence, signed) != entry.hash:
            yield f"entry {entry.sequence} is not the one that was signed or exported"
        self._hash, self.entries = entry.hash, entry.sequence

    def faults_of_end(self, head: Head | None) -> Iterator[str]:
        """What is wrong with where the chain ends; `head` is what the database notes of it."""
        if self._latest > self.entries:
            yield f"entries {self.entries + 1} to {self._latest}, which were signed or exported, are missing"
        if (head.sequence if head else 0, head.hash if head else GENESIS) != (self.entries, self._hash):
            yield f"the chain ends with entry {self.entries}, its head says {head.sequence if head else 0}"


def says_the_same(document: str, entry_id: str, tenant_id: TenantId, project_id: str) -> bool:
    """Whether a document is about what stands beside it."""
    try:
        members: Any = json.loads(document)
    except ValueError:
        return False
    ids = {"id": entry_id, "tenantId": tenant_id, "projectId": project_id}
    return isinstance(members, dict) and ids.items() <= {name: str(members.get(name)) for name in ids}.items()
