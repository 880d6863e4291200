"""Who may call which method of auth (docs/zero-trust.md)."""

from chassis.callers import INSIDE, by, table

_BY_GATEWAY = by("gateway")

CALLERS = table(
    {
        "pulsegate.auth.v1.CredentialService": {
            "Authenticate": by("gateway", INSIDE),
            "GetSigningKeys": by("gateway", "config", "codegen", "receiver"),
            "WatchCredentials": _BY_GATEWAY,
        },
        "pulsegate.auth.v1.AccountService": {
            "SignUp": _BY_GATEWAY,
            "SignIn": _BY_GATEWAY,
            "Refresh": _BY_GATEWAY,
            "SignOut": _BY_GATEWAY,
            "GetMe": _BY_GATEWAY,
            "ListProjects": _BY_GATEWAY,
            "CreateProject": _BY_GATEWAY,
            "GetProject": _BY_GATEWAY,
            "UpdateProject": _BY_GATEWAY,
            "DeleteProject": _BY_GATEWAY,
            "FindDeletedProjects": by("config", "codegen"),
            "ListKeys": _BY_GATEWAY,
            "CreateKey": _BY_GATEWAY,
            "UpdateKey": _BY_GATEWAY,
            "RevokeKey": _BY_GATEWAY,
            "RotateKey": _BY_GATEWAY,
            "ReportLeakedKeys": _BY_GATEWAY,
            "GetPublishableKey": _BY_GATEWAY,
            "ListMembers": _BY_GATEWAY,
            "AddMember": _BY_GATEWAY,
            "UpdateMember": _BY_GATEWAY,
            "RemoveMember": _BY_GATEWAY,
        },
        "pulsegate.auth.v1.OwnAccountService": {
            "RequestPasswordReset": _BY_GATEWAY,
            "ResetPassword": _BY_GATEWAY,
            "ChangePassword": _BY_GATEWAY,
            "RequestEmailVerification": _BY_GATEWAY,
            "VerifyEmail": _BY_GATEWAY,
            "GetTotp": _BY_GATEWAY,
            "BeginTotp": _BY_GATEWAY,
            "ConfirmTotp": _BY_GATEWAY,
            "RenewRecoveryCodes": _BY_GATEWAY,
            "DisableTotp": _BY_GATEWAY,
            "ListSessions": _BY_GATEWAY,
            "RevokeSession": _BY_GATEWAY,
            "RevokeOtherSessions": _BY_GATEWAY,
        },
        "pulsegate.auth.v1.InvitationService": {
            "CreateInvitation": _BY_GATEWAY,
            "ListInvitations": _BY_GATEWAY,
            "RevokeInvitation": _BY_GATEWAY,
            "AcceptInvitation": _BY_GATEWAY,
        },
        "pulsegate.auth.v1.SingleSignOnService": {
            "CreateIdentityProvider": _BY_GATEWAY,
            "ListIdentityProviders": _BY_GATEWAY,
            "GetIdentityProvider": _BY_GATEWAY,
            "UpdateIdentityProvider": _BY_GATEWAY,
            "DeleteIdentityProvider": _BY_GATEWAY,
            "CreateProvisioningToken": _BY_GATEWAY,
            "RevokeProvisioningToken": _BY_GATEWAY,
            "BeginSignOn": _BY_GATEWAY,
            "CompleteOidcSignOn": _BY_GATEWAY,
            "CompleteSamlSignOn": _BY_GATEWAY,
            "GetSamlMetadata": _BY_GATEWAY,
            "RedeemSignOn": _BY_GATEWAY,
            "SignOnWithPassword": _BY_GATEWAY,
            "ListRemovedMembers": _BY_GATEWAY,
            "ReadmitMember": _BY_GATEWAY,
        },
        "pulsegate.auth.v1.ProvisioningService": {
            "ListProvisionedAccounts": _BY_GATEWAY,
            "GetProvisionedAccount": _BY_GATEWAY,
            "UpdateProvisionedAccount": _BY_GATEWAY,
            "RemoveProvisionedAccount": _BY_GATEWAY,
        },
        "pulsegate.auth.v1.AuditService": {
            "ListAuditEntries": _BY_GATEWAY,
            "RecordAuditEntries": by("config"),
        },
        "pulsegate.auth.v1.OperatorService": {
            "ListTenants": _BY_GATEWAY,
            "UpdateTenant": _BY_GATEWAY,
        },
    }
)
