"""Signing in by SAML 2.0: the Web Browser SSO Profile, begun by us alone (saml-profiles-2.0-os, 4.1)."""

import asyncio
import base64
import zlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from threading import BoundedSemaphore

from lxml import etree
from yarl import URL

from chassis.clock import Clock, from_unix_ms, rfc3339
from services.auth.errors import TooManyAnswers
from services.auth.identity_providers import Vouched
from services.auth.provider_settings import SamlSettings
from services.auth.saml_assertions import Expected, vouched_by
from services.auth.saml_documents import NAMES, PERSISTENT, POST_BINDING, named
from services.auth.saml_metadata import ServiceProvider
from services.auth.sign_on_secrets import SignOnSecrets

_THREADS = 2
#: Being read, and waiting to be; each takes some milliseconds.
_MOST_ANSWERS = 64
#: DEFLATE without a header (RFC 1951).
_RAW = -15


@dataclass(frozen=True, kw_only=True)
class SamlAnswer:
    """What a browser brought back from its provider."""

    #: `SAMLResponse`: in base64.
    response: str
    to: ServiceProvider


class SamlClient:
    """Made by `reading`."""

    def __init__(self, threads: ThreadPoolExecutor, clock: Clock) -> None:
        self._threads = threads
        self._room = BoundedSemaphore(_MOST_ANSWERS)
        self._clock = clock

    def authorization_url(self, settings: SamlSettings, us: ServiceProvider, state: str, secrets: SignOnSecrets) -> str:
        """Where to send the browser, with a request in the address (saml-bindings-2.0-os, 3.4)."""
        deflated = zlib.compress(self._request(settings, us, secrets.request_id), wbits=_RAW)
        asked = {"SAMLRequest": base64.b64encode(deflated).decode(), "RelayState": state}
        return str(URL(settings.sign_in_url).update_query(asked))

    async def vouched(
        self, settings: SamlSettings, role_attribute: str, answer: SamlAnswer, secrets: SignOnSecrets
    ) -> Vouched:
        """Whom the provider vouches for. Raises SignOnFailed, TooManyAnswers."""
        expected = Expected(
            settings=settings,
            role_attribute=role_attribute,
            us=answer.to,
            request_id=secrets.request_id,
            now=from_unix_ms(self._clock.now_ms()),
        )
        if not self._room.acquire(blocking=False):
            raise TooManyAnswers
        reading = self._threads.submit(vouched_by, answer.response, expected)
        # Counted until the thread is done with it, also where the caller has given up.
        reading.add_done_callback(lambda _: self._room.release())
        return await asyncio.wrap_future(reading)

    def _request(self, settings: SamlSettings, us: ServiceProvider, request_id: str) -> bytes:
        request = etree.Element(
            named("samlp", "AuthnRequest"),
            nsmap={prefix: NAMES[prefix] for prefix in ("samlp", "saml")},
            ID=request_id,
            Version="2.0",
            IssueInstant=rfc3339(from_unix_ms(self._clock.now_ms())),
            Destination=settings.sign_in_url,
            ProtocolBinding=POST_BINDING,
            AssertionConsumerServiceURL=us.acs_url,
        )
        etree.SubElement(request, named("saml", "Issuer")).text = us.entity_id
        if not settings.subject_attribute:
            etree.SubElement(request, named("samlp", "NameIDPolicy"), Format=PERSISTENT, AllowCreate="true")
        return etree.tostring(request)


@asynccontextmanager
async def reading(clock: Clock) -> AsyncIterator[SamlClient]:
    """A client whose threads end with the block."""
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="saml")
    try:
        yield SamlClient(threads, clock)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
