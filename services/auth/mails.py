"""What auth mails: who gets it, why, and the text."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTPUTF8
from enum import StrEnum

from services.auth.domain import MOST_LEAK_MAILS, MailId


class MailPurpose(StrEnum):
    """Why a mail is sent."""

    PASSWORD_RESET = "password_reset"  # noqa: S105 - a purpose
    EMAIL_VERIFICATION = "email_verification"
    INVITATION = "invitation"
    #: Tells the owner of an account what was changed about it; carries no token.
    NOTICE = "notice"
    #: An API key was found in public, and revoked.
    KEY_LEAKED = "key_leaked"


@dataclass(frozen=True, kw_only=True)
class Mail:
    """One that waits to be sent."""

    id: MailId
    purpose: MailPurpose
    #: The address as whoever caused it wrote it.
    recipient: str
    #: What the text needs besides, by name.
    details: Mapping[str, str]
    created_at: datetime
    #: How often it was tried, this time included.
    attempts: int = 0


@dataclass(frozen=True, kw_only=True)
class _Text:
    subject: str
    #: What may stand in braces: `token`, `place` (where to use it) and what `Mail.details` names.
    body: str
    #: Page of the console that takes the token.
    page: str = ""
    #: Route that takes it.
    route: str = ""


_TEXTS: Mapping[MailPurpose, _Text] = {
    MailPurpose.PASSWORD_RESET: _Text(
        subject="Reset your Pulsegate password",
        body="Somebody, probably you, asked to reset the password of your Pulsegate account.\n\n{place}\n\n"
        "This works once, within 30 minutes. It ends all of your sessions. If it was not you, do nothing: your password"
        " stays as it is.\n",
        page="reset-password",
        route="/api/v1/auth/password-reset/confirm",
    ),
    MailPurpose.EMAIL_VERIFICATION: _Text(
        subject="Verify your e-mail address for Pulsegate",
        body="A Pulsegate account was made with this e-mail address.\n\n{place}\n\n"
        "This works once, within 24 hours. If it was not you, do nothing: the address stays unverified.\n",
        page="verify-email",
        route="/api/v1/auth/email-verification/confirm",
    ),
    MailPurpose.INVITATION: _Text(
        subject="You are invited to Pulsegate",
        body="{inviter} invites you to {tenant} on Pulsegate, as {role}.\n\n{place}\n\n"
        "This works once, within 7 days, for the account with this e-mail address: sign up with it if you have none."
        " If you do not know who invites you, do nothing.\n",
        page="accept-invitation",
        route="/api/v1/invitations/accept",
    ),
    MailPurpose.NOTICE: _Text(
        subject="Your Pulsegate account was changed",
        body="{change}\n\nIf it was not you, reset your password now: that ends all sessions.\n",
    ),
    MailPurpose.KEY_LEAKED: _Text(
        subject="A Pulsegate API key was leaked and revoked",
        body='The secret API key "{key}" ({prefix}…) was found in {found}.\n\nIt does not work any more. Make a new one'
        " for whatever used it, and look at what was done with the old one.\n\n"
        f"Of {MOST_LEAK_MAILS} keys at most you are told by mail within a day; the audit log has them all.\n",
    ),
}


def composed(mail: Mail, recipient: str, token: str, *, sender: str, console_url: str | None) -> EmailMessage:
    """The message to `recipient`. With a console its pages take the token, which stands in the part of the address that
    browsers keep to themselves; without one the text names the token and its route."""
    text = _TEXTS[mail.purpose]
    if console_url:
        place = f"Open {console_url}/{text.page}#token={token}"
    else:
        place = f"Your token is:\n\n    {token}\n\nSend it to POST {text.route}"
    message = EmailMessage(policy=SMTPUTF8)
    message["Subject"] = text.subject
    message["From"] = sender
    message["To"] = _address(recipient)
    message["Date"] = mail.created_at
    # The same each time that it is tried, so that mail programs show one.
    message["Message-ID"] = f"<{mail.id}@{sender.rpartition('@')[2].rstrip('>')}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office replies
    message.set_content(text.body.format_map({**mail.details, "place": place}))
    return message


def _address(text: str) -> Address:
    """One address whatever stands in it: parsed from a header, a comma would make two."""
    username, _, domain = text.rpartition("@")
    return Address(username=username, domain=domain)
