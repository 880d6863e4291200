"""Logs, read as lines of JSON: no secret gets into them, wherever it stands."""

import json
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from hypothesis import assume, given
from hypothesis import strategies as st

from chassis import context, logs
from services.auth.domain import email_fault

CANARIES = {
    "secret key": "sk_CANARY0123456789abcdefghijklmnopqrstuvwxyz",
    "publishable key": "pk_CANARY0123456789abcdefghijklmnopqrstuvwxyz",
    "refresh token": "rt_CANARY0123456789abcdefghijklmnop",
    "JWT": "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJDQU5BUlkifQ.c2lnbmF0dXJlLUNBTkFSWQ",  # pragma: allowlist secret
    "e-mail address": "canary.person+tag@mail.example.com",
    "e-mail address with an apostrophe": "canary.person'CANARY@exämple.com",
    "e-mail address with other letters": "jürgen.CANARY@exämple.com",
    "e-mail address beside a password": '{"email":"canary.person@example.com","password":"CANARY @ CANARY"}',
    "password in an address": "postgresql://auth:CANARY-pa55@db:5432/pulsegate",
    "password of a connection": "host=db user=auth password=CANARY-pa55 dbname=x",
    "password in a body": '{"email": "a", "password": "CANARY of three"}',
    "bearer token": "Authorization: Bearer CANARYopaque",
}


@pytest.fixture(autouse=True)
def configured() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


@dataclass
class Holder:
    """Something that is logged by its repr."""

    held: str


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("canary", CANARIES.values(), ids=CANARIES.keys())
def test_a_secret_is_redacted_wherever_it_stands(canary: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("test", "debug")
    log = logs.get("tests")
    log.info("in the event " + canary)  # noqa: G003 - what careless code does
    log.info("in a field", field=canary)
    log.info("deep down", field={"a": [{"b": (canary, {canary})}]})
    log.info("as a key", field={canary: 1})
    log.info("in an object", field=Holder(canary))
    log.info("as bytes", field=canary.encode())
    log.info("as an argument %s", canary)
    try:
        raise ValueError(canary)
    except ValueError:
        log.exception("in an exception")
    logging.getLogger("a.library").warning("from a library: %s", canary)
    logging.getLogger("a.library").warning("with extra", extra={"field": canary})

    written = capsys.readouterr().out
    assert len(written.splitlines()) == 10
    assert "CANARY" not in written
    assert "canary.person" not in written


@pytest.mark.parametrize(
    "field",
    ["password", "new_password", "refreshToken", "access_token", "Authorization", "cookie", "api_key", "apiKey", "dsn"],
)
def test_a_field_that_is_named_like_a_secret_is_redacted(field: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("test")
    logs.get("tests").info("event", **{field: "CANARY", "nested": {field: ["CANARY"]}})
    assert "CANARY" not in capsys.readouterr().out


def test_what_is_no_secret_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("test")
    logs.get("tests").info("metric defined", name="checkouts_total", n=3, ratio=0.5, ok=True, none=None, many=[1, "b"])
    (line,) = lines(capsys)
    kept = {key: line[key] for key in ("event", "name", "n", "ratio", "ok", "none", "many", "service", "level")}
    assert kept == {
        "event": "metric defined",
        "name": "checkouts_total",
        "n": 3,
        "ratio": 0.5,
        "ok": True,
        "none": None,
        "many": [1, "b"],
        "service": "test",
        "level": "info",
    }


def test_an_exception_is_logged_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("test")
    try:
        raise KeyError("absent")
    except KeyError:
        logs.get("tests").exception("look-up failed")
    (line,) = lines(capsys)
    assert "Traceback" in line["exception"]
    assert "KeyError: 'absent'" in line["exception"]


def test_the_correlation_id_is_on_every_line_of_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("test")
    token = context.CORRELATION_ID.set("abc-123")
    logs.get("tests").info("ours")
    logging.getLogger("a.library").warning("theirs")
    context.CORRELATION_ID.reset(token)
    logs.get("tests").info("outside")
    assert [line.get("correlation_id") for line in lines(capsys)] == ["abc-123", "abc-123", None]


def test_a_line_break_does_not_make_a_second_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("test")
    logs.get("tests").info("one\nevent", field='two\r\n{"level": "forged"}')
    assert len(lines(capsys)) == 1


def test_levels_below_the_configured_one_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("test", "warning")
    logs.get("tests").info("left out")
    logs.get("tests").warning("kept")
    assert [line["event"] for line in lines(capsys)] == ["kept"]


def visible(*, without: str, max_size: int) -> st.SearchStrategy[str]:
    letters = st.characters(exclude_categories=["C", "Z"], exclude_characters=without)
    return st.text(letters, min_size=1, max_size=max_size)


@given(visible(without="@", max_size=64), st.lists(visible(without="@.", max_size=20), min_size=2, max_size=4))
def test_every_email_address_that_sign_up_accepts_is_redacted(local: str, domain: list[str]) -> None:
    address = f"{local}@{'.'.join(domain)}"
    assume(email_fault(address) is None)
    assume("://" not in address)  # taken for the address of a server: what stands before the @ goes, its host stays
    assert re.fullmatch(r"from \[redacted\]( to)?", logs.redact_text(f"from {address} to"))


@pytest.mark.parametrize("text", ["a", "@", "a@", "a@ ", "eyJ", "eyJa.", "://", "password=", "bearer ", "password': '"])
def test_redaction_takes_linear_time(text: str) -> None:
    begin = time.process_time()
    logs.redact_text(text * 100_000)
    assert time.process_time() - begin < 5
