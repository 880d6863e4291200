"""Every error that auth answers beyond the chassis's own, each with its stable code."""

from chassis.errors import WAITING_FOR, Conflict, Forbidden, Invalid, Limited, Unauthenticated, Unavailable


def _printable(said: str) -> str:
    """What may come from a provider, made fit for messages and for the database, which takes no half characters."""
    return "".join(filter(str.isprintable, said[:200]))


class InvalidCredentials(Unauthenticated):
    """Unknown e-mail address or wrong password: never said which."""

    code = "INVALID_CREDENTIALS"

    def __init__(self) -> None:
        super().__init__("The e-mail address or the password is wrong.")


class InvalidLogin(Unauthenticated):
    """A login that nobody or more than one has in a directory, or a wrong password: never said which."""

    code = "INVALID_CREDENTIALS"

    def __init__(self) -> None:
        super().__init__("The login or the password is wrong.")


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


class InvalidProvisioningToken(Unauthenticated):
    """Unknown, replaced or revoked: never said which."""

    def __init__(self) -> None:
        super().__init__("The provisioning token is unknown, was replaced by another, or revoked.")


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


class AddedTooOften(Conflict):
    """Whom others have added to so many tenants becomes a member of another by their own will alone."""

    def __init__(self) -> None:
        super().__init__("This user was added to as many tenants as others may add them to. Invite them instead.")


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
    """Others become members by those alone whose own address is known to be theirs."""

    def __init__(self) -> None:
        super().__init__(
            "Verify your own e-mail address before you invite or add others, or make them owners. Where an identity"
            " provider vouches for yours, an owner of the tenant must have verified theirs."
        )


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
    """A tenant never goes without an owner who can sign in and wants to be one."""

    def __init__(self) -> None:
        super().__init__(
            "The last owner who can sign in, and was not merely added by others, can neither leave nor be demoted."
            " Invite another owner first."
        )


class TooManyPasswords(Unavailable):
    """More passwords are waiting to be checked than PULSEGATE_BCRYPT_QUEUE allows, or than are done in time."""

    def __init__(self) -> None:
        # Whoever asks something else is served: nobody's breaker is to open for this.
        details = {WAITING_FOR: "password-checks"}
        super().__init__("Too many people are signing in at this moment.", details=details, retry_after_seconds=1.0)


class SigningKeysMissing(Unavailable):
    """The keys that sign tokens have not been read from the database yet."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The signing keys are not loaded: {reason}", retry_after_seconds=1.0)


class UnsafeAddress(Invalid):
    """An address of an identity provider that must not be asked."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"The identity provider's address {url[:200]} cannot be used: {reason}.")
        self.reason = reason


class ProviderAway(Unavailable):
    """An identity provider that does not answer, or not as one."""

    def __init__(self, url: str, cause: str) -> None:
        super().__init__(
            "The identity provider does not answer, or not as one. Its tenant's audit log says more.",
            # Other providers, and other ways to sign in, are not away.
            details={WAITING_FOR: "identity-provider"},
            retry_after_seconds=5.0,
        )
        #: For the log, and for who administers the provider: anybody may begin a sign-on, and reads the message.
        self.url = _printable(url)
        self.cause = _printable(cause)


class OutOfReach(ProviderAway):
    """An identity provider at an address that must not be asked."""


class TooManyLookups(Unavailable):
    """More names of identity providers wait to be looked up than may."""

    def __init__(self) -> None:
        details = {WAITING_FOR: "name-lookups"}
        super().__init__("Too many identity providers are looked for.", details=details, retry_after_seconds=5.0)


class TooManyAnswers(Unavailable):
    """More answers of identity providers wait to be read than may."""

    def __init__(self) -> None:
        details = {WAITING_FOR: "sign-ons"}
        super().__init__("Too many people are signing in at this moment.", details=details, retry_after_seconds=1.0)


class TooManySignOns(Unavailable):
    """More people sign in through a directory, or through all of them, than may at a time."""

    def __init__(self) -> None:
        details = {WAITING_FOR: "identity-provider"}
        super().__init__("Too many people are signing in at this moment.", details=details, retry_after_seconds=1.0)


class SignOnOver(Unauthenticated):
    """Unknown, expired, completed before, or begun by another browser: never said which."""

    code = "SSO_STATE_INVALID"

    def __init__(self) -> None:
        super().__init__("This sign-on is unknown, over, or was begun by another browser. Begin it anew.")


class SignOnFailed(Unauthenticated):
    """The identity provider does not vouch for anybody, or not in a way that can be believed."""

    code = "SSO_FAILED"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The identity provider has not signed you in: {_printable(reason)}.")


class TooManyGroups(SignOnFailed):
    """Of some of somebody's groups alone, a lower role could follow than of all of them, or a higher one."""

    def __init__(self) -> None:
        super().__init__("it says more groups than are read")


class SignOnNotAllowed(Forbidden):
    """Whom the identity provider vouches for is nobody whom the tenant takes."""

    code = "SSO_NOT_ALLOWED"

    def __init__(self, reason: str) -> None:
        super().__init__(f"You may not sign in here: {reason}.")


class MemberRemoved(Forbidden):
    """Whom the identity provider vouches for was removed, by an admin or by itself, and not let in again."""

    code = "SSO_MEMBER_REMOVED"

    def __init__(self, user_id: str) -> None:
        super().__init__("You were removed from this tenant. Only one of its admins can let you in again.")
        #: For the audit log.
        self.user_id = user_id


class TooManyProjects(Invalid):
    """So many projects that another is refused."""

    code = "PROJECT_LIMIT_REACHED"

    def __init__(self, most: int) -> None:
        super().__init__(
            f"This tenant already has {most} projects, the most that its plan allows. Delete one first.",
            details={"limit": most},
        )


class TooManyKeys(Invalid):
    """So many live keys that another is refused."""

    code = "KEY_LIMIT_REACHED"

    def __init__(self, most: int) -> None:
        super().__init__(
            f"This tenant already has {most} keys that are neither revoked nor expired, the most that its plan allows."
            " Revoke one first.",
            details={"limit": most},
        )


class TooManyProviders(Conflict):
    """So many identity providers that another is refused."""

    def __init__(self) -> None:
        super().__init__("This tenant has as many identity providers as it may have. Delete one first.")


class OtherProvider(Conflict):
    """What a provider is known by does not change: its accounts would become other people's."""

    def __init__(self) -> None:
        super().__init__(
            "The kind and the issuer of an identity provider stay, or the url and the baseDn of its directory, and what"
            " it names people by. Add another instead."
        )


class AddressOfProvider(Forbidden):
    """An account that an identity provider has made proves no address of its own, and belongs to its tenant alone."""

    def __init__(self) -> None:
        super().__init__("An identity provider has made this account: it belongs to that provider's tenant alone.")
