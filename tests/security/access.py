"""Who may call what: the one table that the running suite and docs/access.md are held to.

A route that is not in it fails `test_access.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

#: The least role in the tenant; `anybody`: about their own account; `nobody`: keys alone; `provider`: an identity
#: provider by its provisioning token, which is good for nothing else.
People = Literal["viewer", "editor", "admin", "owner", "operator", "anybody", "nobody", "provider"]


@dataclass(frozen=True)
class Rule:
    """Who may call an operation that takes a credential."""

    people: People
    #: What a key needs; "": no key may.
    scope: str = ""
    #: Codes that somebody who may call it is answered here all the same, because the request is made up.
    answers: tuple[str, ...] = ()


_OWN = Rule("anybody")
_OWN_PASSWORD = Rule("anybody", "", ("INVALID_CREDENTIALS",))
_MAILED = Rule("anybody", "", ("INVALID_TOKEN",))
_WRITE = Rule("nobody", "ingest:write")
_PROVIDER = Rule("provider")
#: It has brought nobody.
_PROVISIONED = Rule("provider", "", ("NOT_FOUND",))
_QUERY = Rule("viewer", "query:read")

#: By the operation's id in the OpenAPI document.
RULES: Mapping[str, Rule] = {
    # one's own account
    "whoIAm": _OWN,
    "changeMyPassword": _OWN_PASSWORD,
    "askForAVerificationOfMyAddress": _OWN,
    "verifyMyEMailAddress": _MAILED,
    "listMySessions": _OWN,
    "endMyOtherSessions": _OWN,
    "endASession": _OWN,
    "mySecondFactor": _OWN,
    "beginASecondFactor": _OWN_PASSWORD,
    "confirmASecondFactor": Rule("anybody", "", ("CONFLICT",)),
    "renewRecoveryCodes": _OWN_PASSWORD,
    "disableMySecondFactor": _OWN_PASSWORD,
    "acceptAnInvitation": _MAILED,
    # projects and keys
    "listProjects": Rule("viewer"),
    "makeAProject": Rule("admin"),
    "showAProject": Rule("viewer", "config:read"),
    "renameAProject": Rule("admin"),
    "deleteAProject": Rule("admin"),
    "listKeys": Rule("viewer"),
    "makeAKey": Rule("admin"),
    "changeAKey": Rule("admin"),
    "revokeAKey": Rule("admin"),
    "rotateAKey": Rule("admin"),
    # the tenant
    "listMembers": Rule("viewer"),
    "addAMember": Rule("admin", "", ("NOT_FOUND",)),
    "changeAMembersRole": Rule("admin"),
    "removeAMember": Rule("admin"),
    "listInvitations": Rule("admin"),
    "inviteSomebody": Rule("admin"),
    "revokeAnInvitation": Rule("admin"),
    "listIdentityProviders": Rule("admin"),
    "addAnIdentityProvider": Rule("owner"),
    "showAnIdentityProvider": Rule("admin"),
    "changeAnIdentityProvider": Rule("owner"),
    "deleteAnIdentityProvider": Rule("owner"),
    "makeAProvisioningToken": Rule("owner"),
    "revokeAProvisioningToken": Rule("owner"),
    "findProvisionedUsers": _PROVIDER,
    "showAProvisionedUser": _PROVISIONED,
    "deactivateOrReactivateAProvisionedUser": _PROVISIONED,
    "replaceAProvisionedUser": _PROVISIONED,
    "removeAProvisionedUser": _PROVISIONED,
    "listRemovedMembers": Rule("admin"),
    "letARemovedMemberInAgain": Rule("admin", "", ("NOT_FOUND",)),
    "readTheAuditLog": Rule("admin", "audit:read"),
    "showATenantsLimits": Rule("viewer", "usage:read"),
    "setATenantsLimits": Rule("operator"),
    "listEveryTenant": Rule("operator"),
    "setATenantsPlanOrSuspendIt": Rule("operator"),
    # definitions and what is made of them
    "listMetrics": Rule("viewer", "config:read"),
    "defineAMetric": Rule("editor", "config:write"),
    "showAMetric": Rule("viewer", "config:read"),
    "changeAMetric": Rule("editor", "config:write", ("CONFLICT",)),
    "deleteAMetric": Rule("editor", "config:write"),
    "showAProjectsSettings": Rule("viewer", "config:read"),
    "changeAProjectsSettings": Rule("admin"),
    "generateAClient": Rule("viewer", "config:read"),
    # metrics in
    "sendMetrics": _WRITE,
    "sendStatsDLines": _WRITE,
    "sendOTLPMetrics": _WRITE,
    "sendByRemoteWrite": _WRITE,
    "replaceAGroup": _WRITE,
    "pushToAGroup": _WRITE,
    "endAGroup": _WRITE,
    "replaceAGroupOfAJobInBase64url": _WRITE,
    "pushToAGroupOfAJobInBase64url": _WRITE,
    "endAGroupOfAJobInBase64url": _WRITE,
    # numbers out
    "showTheLedger": Rule("viewer", "usage:read"),
    "listRejections": Rule("viewer", "usage:read"),
    "queryAtOneMoment": _QUERY,
    "queryAtOneMomentByForm": _QUERY,
    "queryOverARange": _QUERY,
    "queryOverARangeByForm": _QUERY,
    "queryExemplars": _QUERY,
    "queryExemplarsByForm": _QUERY,
    "listSeries": _QUERY,
    "listSeriesByForm": _QUERY,
    "listLabels": _QUERY,
    "listLabelsByForm": _QUERY,
    "formatAnExpression": _QUERY,
    "formatAnExpressionByForm": _QUERY,
    "listTheValuesOfALabel": _QUERY,
    "listTheMetadataOfMetrics": _QUERY,
}
