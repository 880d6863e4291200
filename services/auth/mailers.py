"""How a mail leaves: by SMTP in production, into a folder in development."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import aiosmtplib

from chassis.settings import credentials

#: For each step of connecting and signing in, and for saying good-bye.
_STEP_SECONDS = 30.0
#: From connecting until the server answers for the mail. Who gives it up before sends it twice, wherefore RFC 5321
#: (4.5.3.2.6) has its last reply alone take ten minutes; but the mails after it wait for those that are under way.
_TAKEN_SECONDS = 240.0
#: No attempt takes longer.
LONGEST_ATTEMPT_SECONDS = _TAKEN_SECONDS + _STEP_SECONDS
_DEFAULT_PORTS = {"smtp": 587, "smtps": 465, "smtp+plain": 25}


class MailNotSent(Exception):
    """It could not be handed over now; another attempt may succeed."""


class MailRefused(Exception):
    """It will never be taken: there is no such recipient, or the server does not want this mail."""


class Mailer(Protocol):
    """Hands a mail over to whoever delivers it."""

    async def send(self, message: EmailMessage, recipient: str, /) -> None:
        """Returns once somebody else answers for the mail. Raises MailNotSent or MailRefused."""
        ...


class NoMailer:
    """Where neither a server nor a folder is set: mails wait until one is, or until they are given up."""

    async def send(self, _message: EmailMessage, _recipient: str, /) -> None:
        """See `Mailer`."""
        raise MailNotSent("neither PULSEGATE_SMTP_URL nor PULSEGATE_MAIL_FOLDER is set")


class FolderMailer:
    """Keeps each mail as a file, which mail programs open: for development."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, message: EmailMessage, _recipient: str, /) -> None:
        """See `Mailer`. The same mail again replaces its file."""
        name = f"{message['Message-ID'].strip('<>').partition('@')[0]}.eml"
        try:
            await asyncio.to_thread(self._write, name, message.as_bytes())
        except OSError as error:
            raise MailNotSent(f"the folder of mails cannot be written to: {error}") from error

    def _write(self, name: str, content: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = self._folder / f".{name}.part"  # which no pattern of mails finds
        unfinished.touch(mode=0o600)
        unfinished.write_bytes(content)
        unfinished.replace(self._folder / name)


@dataclass(frozen=True, kw_only=True)
class SmtpServer:
    """A mail server to hand mails to."""

    host: str
    port: int
    #: `smtp`: STARTTLS, which the server must offer; `smtps`: TLS from the start; `smtp+plain`: without TLS.
    scheme: str
    username: str | None
    password: str | None

    @classmethod
    def parse(cls, text: str) -> "SmtpServer":
        """From `smtp://user:password@host:port`. Raises ValueError."""
        if not _is_server(text):
            raise ValueError(
                "must be smtp://user:password@host:port (STARTTLS), smtps:// (TLS) or smtp+plain:// (without TLS)"
            )
        parts = urlsplit(text)
        username, password = credentials(text)
        return cls(
            host=str(parts.hostname),
            port=parts.port or _DEFAULT_PORTS[parts.scheme],
            scheme=parts.scheme,
            username=username or None,
            password=password or None,
        )


def _is_server(text: str) -> bool:
    try:
        parts = urlsplit(text)
        further = parts.path.strip("/") or parts.query or parts.fragment
        return parts.scheme in _DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0 and not further
    except ValueError:  # no such port; the error may quote a password
        return False


class SmtpMailer:
    """Hands mails over by SMTP (RFC 5321), a connection each to the server of that moment; certificates are checked."""

    def __init__(self, server: Callable[[], SmtpServer]) -> None:
        self._server = server

    async def send(self, message: EmailMessage, recipient: str, /) -> None:
        """See `Mailer`."""
        server = self._server()
        try:
            async with asyncio.timeout(_TAKEN_SECONDS) as bound, _connected(server) as connection:
                await connection.send_message(message, recipients=[recipient], timeout=_TAKEN_SECONDS)
                bound.reschedule(None)  # it is theirs now: no slow good-bye makes it ours again
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _judged(error.recipients[0].code, error) from error
        except aiosmtplib.SMTPDataError as error:
            raise _judged(error.code, error) from error
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise MailNotSent(f"{type(error).__name__}: {error}") from error


def _connected(server: SmtpServer) -> aiosmtplib.SMTP:
    """From when it is entered."""
    return aiosmtplib.SMTP(
        hostname=server.host,
        port=server.port,
        username=server.username,
        password=server.password,
        use_tls=server.scheme == "smtps",
        start_tls=server.scheme == "smtp",
        timeout=_STEP_SECONDS,
    )


def _judged(code: int, error: aiosmtplib.SMTPException) -> Exception:
    """By the reply code (RFC 5321, 4.2.1): 5yz is for good, 4yz for now."""
    return MailRefused(str(error)) if code >= 500 else MailNotSent(str(error))


def mailer_of(smtp: Callable[[], SmtpServer] | None, folder: Path | None) -> Mailer:
    """By the settings: the server where there is one, else the folder."""
    if smtp is not None:
        return SmtpMailer(smtp)
    return FolderMailer(folder) if folder is not None else NoMailer()
