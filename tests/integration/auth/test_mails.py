"""Mails on their way to a real SMTP server, which refuses, fails and comes back."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from prometheus_client import REGISTRY

from chassis.secrets import SecretFile
from deploy.local.layout import Ports
from services.auth import mailers, outbox
from services.auth.mailers import FolderMailer, MailNotSent, MailRefused, NoMailer, SmtpMailer, SmtpServer, mailer_of
from services.auth.settings import Settings
from tests.certificates import self_signed
from tests.integration.auth.client import running_auth
from tests.integration.auth.clocks import MovableClock
from tests.suite_database import Database
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

RECIPIENT = "ada@example.com"


@pytest.fixture
def port(ports: Ports) -> int:
    """Where a mail server may listen."""
    return ports.server("nats")


class Inbox:
    """What a server took, and what it says to the next."""

    def __init__(self) -> None:
        self.taken: list[Envelope] = []
        self.to_recipient = self.to_data = "250 OK"
        #: Before it answers to a recipient and to a mail, and before it says good-bye.
        self.pause_seconds = self.leaving_seconds = 0.0

    async def handle_RCPT(  # noqa: N802 - aiosmtpd names it
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        await asyncio.sleep(self.pause_seconds)
        envelope.rcpt_tos.append(address)
        return self.to_recipient

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.to_data.startswith("250"):
            self.taken.append(envelope)
        await asyncio.sleep(self.pause_seconds)
        return self.to_data

    async def handle_QUIT(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:  # noqa: N802
        await asyncio.sleep(self.leaving_seconds)
        return "221 Bye"


@asynccontextmanager
async def smtp_server(inbox: Inbox, port: int, **options: Any) -> AsyncIterator[None]:
    server = Controller(inbox, hostname="127.0.0.1", port=port, **options)
    await asyncio.to_thread(server.start)
    try:
        yield
    finally:
        await asyncio.to_thread(server.stop)


def message() -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Message-ID"] = "Pulsegate <pulsegate@example.org>", RECIPIENT, "<1@example.org>"
    made.set_content("Hello")
    return made


def counted(purpose: str, result: str) -> float:
    return REGISTRY.get_sample_value("pulsegate_auth_mails_total", {"purpose": purpose, "result": result}) or 0.0


async def test_a_server_takes_a_mail_with_user_and_password(port: int) -> None:
    inbox, shown = Inbox(), []

    def check(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: object) -> AuthResult:
        assert isinstance(data, LoginPassword)
        shown.append((data.login, data.password))
        return AuthResult(success=True)

    async with smtp_server(inbox, port, authenticator=check, auth_required=True, auth_require_tls=False):
        server = SmtpServer.parse(f"smtp+plain://pulse%40gate:p%2Fw@127.0.0.1:{port}")
        await SmtpMailer(lambda: server).send(message(), RECIPIENT)

    assert shown == [(b"pulse@gate", b"p/w")]
    assert [envelope.rcpt_tos for envelope in inbox.taken] == [[RECIPIENT]]


async def test_a_running_process_signs_in_with_the_password_that_its_file_has_now(
    port: int, settings: Settings, tmp_path: Path
) -> None:
    inbox, file, right = Inbox(), tmp_path / "smtp", b"first"

    def check(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: object) -> AuthResult:
        assert isinstance(data, LoginPassword)
        return AuthResult(success=data.password == right)

    file.write_text(f"smtp+plain://pulsegate:first@127.0.0.1:{port}")
    followed = SecretFile("PULSEGATE_SMTP_URL", file, SmtpServer.parse)
    async with (
        smtp_server(inbox, port, authenticator=check, auth_required=True, auth_require_tls=False),
        running_auth(settings, smtp=followed.current(), secrets={"smtp": followed}) as auth,
    ):
        await auth.sign_up()
        await eventually(lambda: asyncio.sleep(0, len(inbox.taken) == 1), within_seconds=30)
        right = b"second"
        file.write_text(f"smtp+plain://pulsegate:second@127.0.0.1:{port}")
        await eventually(lambda: asyncio.sleep(0, followed.current().password == "second"), within_seconds=30)
        await auth.sign_up()
        await eventually(lambda: asyncio.sleep(0, len(inbox.taken) == 2), within_seconds=30)


async def send_through(port: int) -> None:
    await SmtpMailer(lambda: SmtpServer.parse(f"smtp+plain://127.0.0.1:{port}")).send(message(), RECIPIENT)


@pytest.mark.parametrize(
    ("to_recipient", "to_data", "expected"),
    [
        ("550 no such user", "250 OK", MailRefused),
        ("451 later", "250 OK", MailNotSent),
        ("250 OK", "554 no", MailRefused),
        ("250 OK", "452 full", MailNotSent),
    ],
)
async def test_what_a_server_says_decides_whether_it_is_tried_again(
    port: int, to_recipient: str, to_data: str, expected: type[Exception]
) -> None:
    inbox = Inbox()
    inbox.to_recipient, inbox.to_data = to_recipient, to_data
    async with smtp_server(inbox, port):
        with pytest.raises(expected):
            await send_through(port)


async def test_a_server_that_takes_a_mail_slowly_gets_it_once(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailers, "_STEP_SECONDS", 2.0)
    inbox = Inbox()
    inbox.pause_seconds = 2.5
    async with smtp_server(inbox, port):
        await send_through(port)
    assert len(inbox.taken) == 1


async def test_a_mail_that_was_taken_is_sent_however_slowly_its_server_says_good_bye(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailers, "_TAKEN_SECONDS", 10.0)
    inbox = Inbox()
    inbox.leaving_seconds = 11.0
    async with smtp_server(inbox, port):
        await send_through(port)
    assert len(inbox.taken) == 1


async def test_an_attempt_ends_before_another_replica_takes_the_mail(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outbox._CLAIM.total_seconds() > mailers.LONGEST_ATTEMPT_SECONDS
    monkeypatch.setattr(mailers, "_TAKEN_SECONDS", 1.0)
    inbox = Inbox()
    inbox.pause_seconds = 0.8  # each answer comes in time, but not both
    async with smtp_server(inbox, port):
        with pytest.raises(MailNotSent, match="TimeoutError"):
            await send_through(port)


async def test_without_the_tls_that_was_asked_for_nothing_is_sent(port: int) -> None:
    inbox = Inbox()
    async with smtp_server(inbox, port):
        with pytest.raises(MailNotSent):
            await SmtpMailer(lambda: SmtpServer.parse(f"smtp://127.0.0.1:{port}")).send(message(), RECIPIENT)
    assert inbox.taken == []


async def test_a_certificate_that_nobody_vouches_for_is_not_trusted(port: int, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed(tmp_path, "mail"))
    inbox = Inbox()
    async with smtp_server(inbox, port, tls_context=context):
        with pytest.raises(MailNotSent, match="certificate"):
            await SmtpMailer(lambda: SmtpServer.parse(f"smtp://127.0.0.1:{port}")).send(message(), RECIPIENT)
    assert inbox.taken == []


async def test_a_mail_waits_for_its_server_and_is_given_up_after_a_day(
    port: int, settings: Settings, database: Database, clock: MovableClock
) -> None:
    inbox = Inbox()
    smtp = SmtpServer.parse(f"smtp+plain://127.0.0.1:{port}")
    failed, sent = counted("email_verification", "failed"), counted("email_verification", "sent")
    async with running_auth(settings, clock, smtp=smtp, console_url="https://console.example.com") as auth:
        ada = await auth.sign_up()
        await eventually(lambda: is_counted("email_verification", "failed", failed + 1))
        async with smtp_server(inbox, port):
            await clock.advance(timedelta(minutes=1))
            await eventually(lambda: is_counted("email_verification", "sent", sent + 1))
        [envelope] = inbox.taken
        assert envelope.rcpt_tos == [ada.email]
        assert b"https://console.example.com/verify-email#token=3Dmt_" in (envelope.original_content or b"").replace(
            b"=\r\n", b""
        )

        given_up = counted("notice", "given_up")
        queue_notice(database, ada.email)
        await clock.advance(timedelta(days=1))
        await eventually(lambda: is_counted("notice", "given_up", given_up + 1))


async def test_a_mail_that_a_server_refuses_is_not_tried_again(
    port: int, settings: Settings, database: Database
) -> None:
    inbox = Inbox()
    inbox.to_recipient = "550 no such user"
    refused = counted("email_verification", "refused")
    smtp = SmtpServer.parse(f"smtp+plain://127.0.0.1:{port}")
    async with smtp_server(inbox, port), running_auth(settings, smtp=smtp) as auth:
        await auth.sign_up()
        await eventually(lambda: is_counted("email_verification", "refused", refused + 1))
    with psycopg.connect(database.superuser_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM auth.mails").fetchall() == [(0,)]


async def test_an_address_that_no_header_can_hold_gets_no_mail_and_stops_no_other(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    unwanted, sent = counted("notice", "unwanted"), counted("notice", "sent")
    for address in ("a@[.example", "=?utf-8?q?a=0D=0ABcc=3Ab?=@example.com", RECIPIENT):
        queue_notice(database, address)

    async with running_auth(settings, mail_folder=tmp_path):
        await eventually(lambda: is_counted("notice", "unwanted", unwanted + 2))
        await eventually(lambda: is_counted("notice", "sent", sent + 1))


async def test_a_mail_that_meets_a_database_in_trouble_is_tried_again(
    settings: Settings, database: Database, clock: MovableClock, tmp_path: Path
) -> None:
    unwanted = counted("password_reset", "unwanted")
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:

        async def was_tried(times: int) -> bool:
            return connection.execute("SELECT attempts FROM auth.mails").fetchall() == [(times,)]

        connection.execute("ALTER TABLE auth.mailed_tokens RENAME TO elsewhere")
        connection.execute(
            "INSERT INTO auth.mails (id, purpose, recipient, details, created_at, due_at)"
            " VALUES (uuidv7(), 'password_reset', %s, '{}', now(), now())",
            (RECIPIENT,),
        )
        async with running_auth(settings, clock, mail_folder=tmp_path):
            for times in (1, 2):
                await eventually(partial(was_tried, times), what=f"attempt {times}")
                await clock.advance(timedelta(minutes=6))
            connection.execute("ALTER TABLE auth.elsewhere RENAME TO mailed_tokens")
            await clock.advance(timedelta(minutes=6))
            await eventually(lambda: is_counted("password_reset", "unwanted", unwanted + 1))


def queue_notice(database: Database, recipient: str) -> None:
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute(
            "INSERT INTO auth.mails (id, purpose, recipient, details, created_at, due_at)"
            " VALUES (uuidv7(), 'notice', %s, '{\"change\": \"It was changed.\"}', now(), now())",
            (recipient,),
        )


async def is_counted(purpose: str, result: str, least: float) -> bool:
    return counted(purpose, result) >= least


async def test_a_mail_is_sent_by_the_process_that_comes_after_the_one_that_queued_it(
    settings: Settings, tmp_path: Path
) -> None:
    blocked = tmp_path / "not a folder"
    blocked.touch()
    failed = counted("email_verification", "failed")
    clock = MovableClock()
    async with running_auth(settings, clock, mail_folder=blocked) as auth:
        await auth.sign_up()
        await eventually(lambda: is_counted("email_verification", "failed", failed + 1))
    await clock.advance(timedelta(minutes=3))
    folder = tmp_path / "mails"
    async with running_auth(settings, clock, mail_folder=folder):

        async def arrived() -> list[Path]:
            return list(folder.glob("*.eml"))

        [file] = await eventually(arrived)
    assert file.stat().st_mode & 0o777 == 0o600


async def test_the_settings_choose_the_mailer(tmp_path: Path) -> None:
    server = SmtpServer.parse("smtps://mail.example.com")

    assert (server.port, SmtpServer.parse("smtp://mail.example.com").port) == (465, 587)
    assert isinstance(mailer_of(lambda: server, tmp_path), SmtpMailer)
    assert isinstance(mailer_of(None, tmp_path), FolderMailer)
    with pytest.raises(MailNotSent, match="PULSEGATE_SMTP_URL"):
        await mailer_of(None, None).send(message(), RECIPIENT)
    assert isinstance(mailer_of(None, None), NoMailer)


@pytest.mark.parametrize(
    "text",
    ["http://mail", "smtp://", "smtp://mail/path", "smtp://mail?tls=no", "mail:25", "smtp://user:pass#word@mail:25"],
)
async def test_the_address_of_a_server_says_how_it_is_spoken_to(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be smtp://.* smtps://"):
        SmtpServer.parse(text)
