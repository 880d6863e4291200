"""Everybody who may want something of a tenant: its members in each role, its keys, a stranger, an operator."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chassis.ids import uuid7
from tests.e2e.api import PASSWORD, Api, Project, sign_up
from tests.e2e.mails import mailed_token
from tests.security.made_requests import PROVIDER
from tests.suite_running import Suite

ROLES = ("viewer", "editor", "admin", "owner")
SCOPES = ("ingest:write", "query:read", "config:read", "config:write", "audit:read", "usage:read")
_OPERATOR = "second-operator@example.com"


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody who has signed up and verified the address."""

    email: str
    user_id: str
    token: str


@dataclass(frozen=True, kw_only=True)
class Cast:
    """One tenant's project, and who calls."""

    project: Project
    #: Access tokens and keys by who shows them: `nobody`, a role, `stranger`, `operator`, `publishable`, or a scope;
    #: and the provisioning token of an identity provider, `provider`.
    credentials: Mapping[str, str]
    #: Addresses of the people among them.
    emails: Mapping[str, str]
    #: A person who is free to be added to the tenant and removed again.
    spare: Person
    #: One of each thing of the tenant, by the names that parameters of the API have.
    ids: Mapping[str, str]
    #: The project of another tenant, and what that has.
    elsewhere: Project
    ids_elsewhere: Mapping[str, str]

    @property
    def keys(self) -> list[str]:
        return ["publishable", *SCOPES]

    async def fresh(self, parameter: str, caller: str) -> str:
        """The id of a thing of the tenant (a session: of the caller) that nothing else needs."""
        project = self.project
        tenant = f"/api/v1/tenants/{project.tenant_id}"
        if parameter == "keyId":
            return str((await project.create_key("secret", scopes=["ingest:write"]))["id"])
        if parameter == "metricId":
            return str((await project.define(f"m{uuid7().hex}_total"))["id"])
        if parameter == "projectId":
            body = {"name": f"Project {uuid7()}", "tenantId": project.tenant_id}
            return await self._made("/api/v1/projects", body)
        if parameter == "invitationId":
            return await self._made(f"{tenant}/invitations", {"email": f"{uuid7()}@example.com", "role": "viewer"})
        if parameter == "providerId":
            return await self._made(f"{tenant}/identity-providers", PROVIDER)
        if parameter == "userId":
            body = {"email": self.spare.email, "role": "viewer"}
            await project.api.call("POST", f"{tenant}/members", body, credential=project.token)
            return self.spare.user_id
        assert parameter == "sessionId", f"no way is known to make a fresh {parameter}: add one"
        body = {"email": self.emails[caller], "password": PASSWORD}
        return session_of((await project.api.expect(200, "POST", "/api/v1/auth/signin", body))["accessToken"])

    async def _made(self, path: str, body: dict[str, Any]) -> str:
        return str((await self.project.api.expect(201, "POST", path, body, credential=self.project.token))["id"])


def session_of(token: str) -> str:
    """The session that an access token belongs to."""
    payload = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sid"])


async def assembled(suite: Suite, api: Api) -> Cast:
    """A new tenant with everybody in it, and a stranger with a tenant of their own."""
    project, stranger, operator = await sign_up(api), await sign_up(api), await _person(suite, api, _OPERATOR)
    people = {role: await _person(suite, api) for role in ROLES if role != "owner"}
    for role, person in people.items():
        body = {"email": person.email, "role": role}
        path = f"/api/v1/tenants/{project.tenant_id}/members"
        await api.expect(201, "POST", path, body, credential=project.token)
    ids = await _ids(project, people["admin"].user_id)
    keys = {scope: (await project.create_key("secret", scopes=[scope]))["key"] for scope in SCOPES}
    return Cast(
        project=project,
        credentials={
            "nobody": "",
            **{role: person.token for role, person in people.items()},
            "owner": project.token,
            "stranger": stranger.token,
            "operator": operator.token,
            "publishable": project.publishable_key,
            "provider": await _provisioning_token(project, ids["providerId"]),
            **keys,
        },
        emails={
            **{role: person.email for role, person in people.items()},
            "owner": project.email,
            "stranger": stranger.email,
            "operator": operator.email,
        },
        spare=await _person(suite, api),
        ids=ids,
        elsewhere=stranger,
        ids_elsewhere=await _ids(stranger, await _user_id(stranger)),
    )


async def _person(suite: Suite, api: Api, email: str = "") -> Person:
    """Signs up and verifies the address; an operator who has done so before signs in."""
    email = email or f"{uuid7()}@example.com"
    new = {"email": email, "password": PASSWORD, "tenantName": "Their own"}
    signed_up = await api.call("POST", "/api/v1/auth/signup", new)
    if signed_up.status == 409:
        account = await api.expect(200, "POST", "/api/v1/auth/signin", {"email": email, "password": PASSWORD})
    else:
        account = signed_up.json
        token = {"token": await mailed_token(suite, email, "Verify")}
        verified = "/api/v1/auth/email-verification/confirm"
        await api.expect(204, "POST", verified, token, credential=account["accessToken"])
    return Person(email=email, user_id=account["user"]["id"], token=account["accessToken"])


async def _provisioning_token(project: Project, provider_id: str) -> str:
    path = f"/api/v1/tenants/{project.tenant_id}/identity-providers/{provider_id}/provisioning-token"
    return str((await project.api.expect(201, "POST", path, credential=project.token))["token"])


async def _user_id(project: Project) -> str:
    me = await project.api.expect(200, "GET", "/api/v1/auth/me", credential=project.token)
    return str(me["user"]["id"])


async def _ids(project: Project, user_id: str) -> dict[str, str]:
    """One of everything that has an id."""
    invitation = await project.api.expect(
        201,
        "POST",
        f"/api/v1/tenants/{project.tenant_id}/invitations",
        {"email": f"{uuid7()}@example.com", "role": "viewer"},
        credential=project.token,
    )
    provider = await project.api.expect(
        201, "POST", f"/api/v1/tenants/{project.tenant_id}/identity-providers", PROVIDER, credential=project.token
    )
    return {
        "tenantId": project.tenant_id,
        "projectId": project.id,
        "keyId": (await project.create_key("publishable", allowedOrigins=["*"]))["id"],
        "metricId": (await project.define("first_total"))["id"],
        "userId": user_id,
        "invitationId": invitation["id"],
        "providerId": provider["id"],
        "sessionId": session_of(project.token),
    }
