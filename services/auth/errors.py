"""Every error that auth answers beyond the chassis's own, each with its stable code."""

from chassis.errors import WAITING_FOR, Conflict, Forbidden, Invalid, Limited, Unauthenticated, Unavailable


class InvalidCredentials(Unauthenticated):
    """Unknown e-mail address or wrong password: never said which."""

    code = "INVALID_CREDENTIALS"

    def __init__(self) -> None:
        super().__init__("The e-mail address or the password is wrong.")


class WrongPassword(Unauthenticated):
    """Not the account's present password."""

    code = "INVALID_CREDENTIALS"

    def __init__(self) -> None:
        super().__init__("This is not your present password.")


class TotpRequired(Unauthenticated):
    """The right password of an account that has a second factor, and no code."""

    code = "TOTP_REQUIRED"

    def __init__(self) -> None:
        super().__init__("This account has a second factor: send a code of it as totp, or a recovery code.")


class InvalidTotp(Unauthenticated):
    """Not a code of this moment, or one that was used: never said which."""

    code = "INVALID_TOTP"

    def __init__(self) -> None:
        super().__init__("The code is wrong or was used before. Wait for the next one.")


class TooManyCodes(Limited):
    """Wrong codes, one after the other: the second factor takes none for a while."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(
            "Too many wrong codes. Wait before the next one.",
            details={"limit": "codes"},
            retry_after_seconds=retry_after_seconds,
        )


class TotpEnabled(Conflict):
    """A second factor is replaced only after it was disabled."""

    def __init__(self) -> None:
        super().__init__("The second factor is enabled. Disable it first.")


class TotpNotBegun(Conflict):
    """There is no second factor to do this to."""

    def __init__(self) -> None:
        super().__init__("There is no second factor yet. Begin with POST /api/v1/auth/totp.")


class InvalidMailedToken(Invalid):
    """Unknown, expired, used, or made void by a newer one: never said which."""

    code = "INVALID_TOKEN"

    def __init__(self) -> None:
        super().__init__("The token is unknown, expired or used. Ask for a new one.")


class InvalidApiKey(Unauthenticated):
    """Unknown, revoked or expired: never said which."""

    code = "INVALID_API_KEY"

    def __init__(self) -> None:
        super().__init__("The API key is unknown, revoked or expired.")


class TokenExpired(Unauthenticated):
    """A genuine access token past its time."""

    code = "TOKEN_EXPIRED"

    def __init__(self) -> None:
        super().__init__("The access token has expired. Get a new one at /api/v1/auth/refresh.")


class SessionOver(Unauthenticated):
    """The session was signed out, revoked or has expired; or the token is none of ours."""

    def __init__(self) -> None:
        super().__init__("The session is over. Sign in again.")


class EmailTaken(Conflict):
    """A second account with one e-mail address."""

    def __init__(self) -> None:
        super().__init__("An account with this e-mail address exists. Sign in instead.")


class AlreadyMember(Conflict):
    """The user is in the tenant already."""

    def __init__(self) -> None:
        super().__init__("This user is a member already. Change the role instead.")


class TooManyInvitations(Conflict):
    """So many open ones that another would have to wait."""

    def __init__(self) -> None:
        super().__init__("This tenant has as many open invitations as it may have. Revoke some first.")


class TooManyInvitationMails(Limited):
    """So many within a day, to the address or of the tenant, that another would fill a mailbox."""

    def __init__(self) -> None:
        super().__init__(
            "This address or this tenant has had as many invitations as it gets in a day.",
            details={"limit": "invitations"},
            retry_after_seconds=3600.0,
        )


class InviterNotVerified(Forbidden):
    """Mails go out for those alone whose own address is known to be theirs."""

    def __init__(self) -> None:
        super().__init__("Verify your own e-mail address before you invite others.")


class TenantSuspended(Forbidden):
    """An operator has suspended the tenant: nobody and no key uses it until it is resumed."""

    code = "TENANT_SUSPENDED"

    def __init__(self) -> None:
        super().__init__("This tenant is suspended. Ask the operators of this Pulsegate.")


class OtherAddress(Forbidden):
    """A mailed token in the hands of somebody else than it was mailed to."""

    def __init__(self) -> None:
        super().__init__("This was mailed to another e-mail address. Sign in, or sign up, with that one.")


class KeyEnded(Conflict):
    """A key that does not live any more does not change or get a successor."""

    def __init__(self) -> None:
        super().__init__("This key is revoked or expired. Make a new one.")


class LastOwner(Conflict):
    """A tenant never goes without an owner."""

    def __init__(self) -> None:
        super().__init__("The last owner can neither leave nor be demoted. Make somebody else an owner first.")


class TooManyPasswords(Unavailable):
    """More passwords are waiting to be checked than PULSEGATE_BCRYPT_QUEUE allows."""

    def __init__(self) -> None:
        # Whoever asks something else is served: nobody's breaker is to open for this.
        details = {WAITING_FOR: "password-checks"}
        super().__init__("Too many people are signing in at this moment.", details=details, retry_after_seconds=1.0)


class SigningKeysMissing(Unavailable):
    """The keys that sign tokens have not been read from the database yet."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The signing keys are not loaded: {reason}", retry_after_seconds=1.0)
