"""The cache of verdicts: true while auth's feed says so, asked anew otherwise, and a short grace for writers."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from chassis.errors import Forbidden, NotFound, PulsegateError, Unauthenticated, Unavailable
from chassis.principals import Principal
from services.gateway.domain import Credential, Verdict
from services.gateway.verdicts import HEARTBEAT_SECONDS, FeedEntry, Verdicts
from tests.moved_clock import MovedClock

KEY = Credential(text="sk_one", kind="secret")
PERSON = Credential(text="an.access.token", kind="user")
GRACE_SECONDS = 30.0


class Authority:
    """auth, as a test tells it to be."""

    def __init__(self, clock: MovedClock) -> None:
        self._clock = clock
        self.revision = 1
        self.lifetime_seconds = 120.0
        self.allowed_origins: frozenset[str] = frozenset()
        #: Whose keys these are.
        self.holder = "tenant"
        self.error: PulsegateError | None = None
        self.asked: list[tuple[str, str]] = []
        #: The only tenant that the person is a member of.
        self.tenant_id = "own"
        self.answering = asyncio.Event()
        self.answering.set()

    async def authenticate(
        self, credential: Credential, project_id: str, tenant_id: str, timeout_seconds: float
    ) -> Verdict:
        self.asked.append((credential.text, project_id or tenant_id))
        revision = self.revision
        await self.answering.wait()
        if self.error is not None:
            raise self.error
        principal = Principal(
            subject=f"subject of {credential.text}",
            kind=credential.kind,
            scopes=frozenset(),
            expires_at=self._clock.seconds + self.lifetime_seconds,
            tenant_id=self.holder,
            project_id=project_id or "project",
            session_id="session" if credential.kind == "user" else "",
        )
        return Verdict(
            principal=principal,
            token=f"signed {len(self.asked)}",
            revision=revision,
            plan="free",
            allowed_origins=self.allowed_origins,
            tenant_ids=frozenset() if project_id or credential.kind != "user" else frozenset({self.tenant_id}),
        )

    async def watch(self, after_revision: int) -> AsyncIterator[FeedEntry]:
        """Tests apply entries themselves."""
        for _ in ():
            yield FeedEntry(revision=after_revision)


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def authority(clock: MovedClock) -> Authority:
    return Authority(clock)


@pytest.fixture
def verdicts(authority: Authority, clock: MovedClock) -> Verdicts:
    made = Verdicts(authority, clock, grace_seconds=GRACE_SECONDS)
    made.apply(FeedEntry(revision=1))
    return made


def tokens(*found: Verdict) -> list[str]:
    return [verdict.token for verdict in found]


async def test_a_verdict_is_asked_for_once(verdicts: Verdicts, authority: Authority) -> None:
    assert tokens(await verdicts.of(KEY), await verdicts.of(KEY)) == ["signed 1", "signed 1"]
    assert len(authority.asked) == 1


async def test_equal_questions_at_the_same_time_are_asked_once(verdicts: Verdicts, authority: Authority) -> None:
    await asyncio.gather(*(verdicts.of(KEY) for _ in range(20)))
    assert len(authority.asked) == 1


async def test_a_person_has_a_verdict_for_each_project(verdicts: Verdicts, authority: Authority) -> None:
    await verdicts.of(PERSON, "one")
    await verdicts.of(PERSON, "two")
    await verdicts.of(PERSON)
    assert [project for _, project in authority.asked] == ["one", "two", ""]


@pytest.mark.parametrize("changed", ["subject of an.access.token", "session", "one", "tenant"])
async def test_what_the_feed_names_is_asked_anew(verdicts: Verdicts, authority: Authority, changed: str) -> None:
    await verdicts.of(PERSON, "one")
    verdicts.apply(FeedEntry(revision=2, changed_ids=("somebody else",)))
    await verdicts.of(PERSON, "one")
    assert len(authority.asked) == 1
    verdicts.apply(FeedEntry(revision=3, changed_ids=(changed,)))
    await verdicts.of(PERSON, "one")
    assert len(authority.asked) == 2


async def test_a_change_of_a_tenant_voids_what_its_members_are_told_about_it_and_themselves(
    verdicts: Verdicts, authority: Authority
) -> None:
    for _ in range(2):
        await verdicts.of(PERSON, tenant_id="own")
        await verdicts.of(PERSON)
    assert [about for _, about in authority.asked] == ["", "own"]
    verdicts.apply(FeedEntry(revision=2, changed_ids=("own",)))
    authority.revision = 2
    for _ in range(2):
        await verdicts.of(PERSON, tenant_id="own")
        await verdicts.of(PERSON)
    assert [about for _, about in authority.asked] == ["", "own"] * 2


async def test_nothing_is_asked_of_tenants_that_are_not_the_persons(verdicts: Verdicts, authority: Authority) -> None:
    for tenant_id in ("theirs", "another", "theirs"):
        assert tokens(await verdicts.of(PERSON, tenant_id=tenant_id)) == ["signed 1"]
    assert [about for _, about in authority.asked] == [""]


async def test_who_joins_a_tenant_counts_as_its_member(verdicts: Verdicts, authority: Authority) -> None:
    await verdicts.of(PERSON, tenant_id="joined")
    authority.tenant_id = "joined"
    authority.revision = 2
    verdicts.apply(FeedEntry(revision=2, changed_ids=("subject of an.access.token",)))
    await verdicts.of(PERSON, tenant_id="joined")
    assert [about for _, about in authority.asked] == ["", "", "joined"]


async def test_a_credential_stays_known_until_auth_refuses_it(
    verdicts: Verdicts, authority: Authority, clock: MovedClock
) -> None:
    assert not verdicts.knows(KEY)
    await verdicts.of(KEY)
    clock.seconds += 3600
    verdicts.apply(FeedEntry(revision=2, reset=True))
    assert verdicts.knows(KEY)
    authority.error = Unauthenticated("revoked")
    with pytest.raises(Unauthenticated):
        await verdicts.of(KEY)
    assert not verdicts.knows(KEY)


async def test_a_reset_voids_everything(verdicts: Verdicts, authority: Authority) -> None:
    await verdicts.of(KEY)
    await verdicts.of(PERSON, "one")
    verdicts.apply(FeedEntry(revision=1, reset=True))
    await verdicts.of(KEY)
    await verdicts.of(PERSON, "one")
    assert len(authority.asked) == 4


async def test_a_heartbeat_past_a_change_that_was_never_heard_of_voids_everything(
    verdicts: Verdicts, authority: Authority
) -> None:
    await verdicts.of(KEY)
    verdicts.apply(FeedEntry(revision=1))
    await verdicts.of(KEY)
    assert len(authority.asked) == 1
    verdicts.apply(FeedEntry(revision=2))
    authority.revision = 2
    await verdicts.of(KEY)
    verdicts.apply(FeedEntry(revision=2))
    await verdicts.of(KEY)
    assert len(authority.asked) == 2


async def test_a_verdict_older_than_the_feed_is_used_once_and_not_kept(
    verdicts: Verdicts, authority: Authority
) -> None:
    authority.answering.clear()
    looking = asyncio.create_task(verdicts.of(KEY))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    verdicts.apply(FeedEntry(revision=2, changed_ids=("anything",)))
    authority.answering.set()
    await looking
    authority.revision = 2
    await verdicts.of(KEY)
    await verdicts.of(KEY)
    assert len(authority.asked) == 2


async def test_without_a_heartbeat_each_use_is_asked_anew(
    verdicts: Verdicts, authority: Authority, clock: MovedClock
) -> None:
    await verdicts.of(KEY)
    clock.seconds += 0.7
    await verdicts.of(KEY)
    assert len(authority.asked) == 1
    clock.seconds += 0.1
    await verdicts.of(KEY)
    await verdicts.of(KEY)
    assert len(authority.asked) == 3
    authority.error = Unauthenticated("revoked", code="INVALID_API_KEY")
    with pytest.raises(Unauthenticated):
        await verdicts.of(KEY, writes=True)


@pytest.mark.parametrize(
    "refusal", [Unauthenticated("unknown", code="INVALID_API_KEY"), Forbidden("suspended", code="TENANT_SUSPENDED")]
)
async def test_a_refusal_is_remembered_for_a_second(
    verdicts: Verdicts, authority: Authority, clock: MovedClock, refusal: PulsegateError
) -> None:
    authority.error = refusal
    for _ in range(5):
        with pytest.raises(type(refusal)) as refused:
            await verdicts.of(KEY)
        assert refused.value.code == refusal.code
    assert len(authority.asked) == 1
    clock.seconds += 1.1
    authority.error = None
    await verdicts.of(KEY)


async def test_another_tenants_project_is_not_remembered(verdicts: Verdicts, authority: Authority) -> None:
    authority.error = NotFound("no such project")
    for _ in range(2):
        with pytest.raises(NotFound):
            await verdicts.of(PERSON, "theirs")
    assert len(authority.asked) == 2


async def test_a_verdict_that_ends_soon_is_renewed_in_the_background(
    verdicts: Verdicts, authority: Authority, clock: MovedClock
) -> None:
    await verdicts.of(KEY)
    clock.seconds += 100
    verdicts.apply(FeedEntry(revision=1))
    assert tokens(await verdicts.of(KEY)) == ["signed 1"]
    await asyncio.sleep(0.01)
    assert tokens(await verdicts.of(KEY)) == ["signed 2"]


async def test_a_verdict_is_not_used_past_its_principals_end(
    verdicts: Verdicts, authority: Authority, clock: MovedClock
) -> None:
    await verdicts.of(KEY)
    clock.seconds += 119
    verdicts.apply(FeedEntry(revision=1))
    assert tokens(await verdicts.of(KEY)) == ["signed 2"]


async def test_while_auth_is_away_a_known_key_goes_on_writing_for_the_grace_period(
    verdicts: Verdicts, authority: Authority, clock: MovedClock
) -> None:
    await verdicts.of(KEY)
    authority.error = Unavailable("auth is away")
    clock.seconds += GRACE_SECONDS - 0.1
    assert tokens(await verdicts.of(KEY, writes=True)) == ["signed 1"]
    clock.seconds += 0.2
    with pytest.raises(Unavailable) as refused:
        await verdicts.of(KEY, writes=True)
    assert refused.value.retry_after_seconds


@pytest.mark.parametrize(("grace_seconds", "lifetime_seconds"), [(30, 120), (90, 120), (30, 60), (10, 30)])
async def test_a_key_in_use_has_the_grace_period_whenever_auth_goes_away(
    authority: Authority, clock: MovedClock, grace_seconds: float, lifetime_seconds: float
) -> None:
    authority.lifetime_seconds = lifetime_seconds
    for age in range(0, 120, 5):
        authority.error = None
        verdicts = Verdicts(authority, clock, grace_seconds=grace_seconds)
        for second in range(age + 1):
            clock.seconds += second > 0
            verdicts.apply(FeedEntry(revision=1))
            await verdicts.of(KEY, writes=True)
            await asyncio.sleep(0)  # what is looked up again in the background
        authority.error = Unavailable("auth is away")
        clock.seconds += grace_seconds - 0.1
        assert await verdicts.of(KEY, writes=True)


async def test_while_auth_is_away_everything_else_fails_closed(
    verdicts: Verdicts, authority: Authority, clock: MovedClock
) -> None:
    await verdicts.of(KEY)
    await verdicts.of(PERSON, "one")
    authority.error = Unavailable("auth is away")
    clock.seconds += 1
    unknown = Credential(text="sk_two", kind="secret")
    for credential, project_id, writes in ((KEY, "", False), (PERSON, "one", True), (unknown, "", True)):
        with pytest.raises(Unavailable):
            await verdicts.of(credential, project_id, writes=writes)


async def test_a_key_that_was_revoked_before_auth_went_away_has_no_grace(
    verdicts: Verdicts, authority: Authority, clock: MovedClock
) -> None:
    await verdicts.of(KEY)
    verdicts.apply(FeedEntry(revision=2, changed_ids=("subject of sk_one",)))
    authority.error = Unavailable("auth is away")
    clock.seconds += 1
    with pytest.raises(Unavailable):
        await verdicts.of(KEY, writes=True)


async def test_no_grace_where_it_is_switched_off(authority: Authority, clock: MovedClock) -> None:
    verdicts = Verdicts(authority, clock, grace_seconds=0)
    verdicts.apply(FeedEntry(revision=1))
    await verdicts.of(KEY)
    authority.error = Unavailable("auth is away")
    clock.seconds += 1
    with pytest.raises(Unavailable):
        await verdicts.of(KEY, writes=True)


async def test_writers_do_not_each_wait_for_an_auth_that_hangs(
    verdicts: Verdicts, authority: Authority, clock: MovedClock
) -> None:
    await verdicts.of(KEY)
    authority.answering.clear()
    clock.seconds += 1
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(50):
        await verdicts.of(KEY, writes=True)
    assert loop.time() - began < 2
    assert len(authority.asked) == 2
    authority.answering.set()


async def test_a_known_key_is_found_without_a_question(verdicts: Verdicts, authority: Authority) -> None:
    assert verdicts.of_known_key(KEY.text) is None
    known = await verdicts.of(KEY)
    assert verdicts.of_known_key(KEY.text) is known
    assert verdicts.of_known_key("sk_two") is None
    assert len(authority.asked) == 1


async def test_a_persons_token_is_no_known_key(verdicts: Verdicts) -> None:
    await verdicts.of(PERSON)
    assert verdicts.of_known_key(PERSON.text) is None


@pytest.mark.parametrize("changed", [f"subject of {KEY.text}", "project"])
async def test_a_known_key_is_unknown_when_the_feed_names_it_or_its_project_or_falls_silent(
    verdicts: Verdicts, clock: MovedClock, changed: str
) -> None:
    await verdicts.of(KEY)
    clock.seconds += HEARTBEAT_SECONDS + 0.1
    assert verdicts.of_known_key(KEY.text) is None
    verdicts.apply(FeedEntry(revision=1))
    assert verdicts.of_known_key(KEY.text) is not None
    verdicts.apply(FeedEntry(revision=2, changed_ids=(changed,)))
    assert verdicts.of_known_key(KEY.text) is None


async def asked_of(verdicts: Verdicts, authority: Authority, keys: range) -> list[int]:
    """Of these keys, the ones that auth is asked for now."""
    authority.asked.clear()
    for key in keys:
        await verdicts.of(Credential(text=f"sk_{key}", kind="secret"))
    return [int(text.removeprefix("sk_")) for text, _ in authority.asked]


async def test_verdicts_with_many_origins_are_kept_for_as_many_bytes_as_there_are(
    verdicts: Verdicts, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.allowed_origins = frozenset(f"https://{number:03}.{'a' * 88}" for number in range(100))  # 20 KB
    monkeypatch.setattr("services.gateway.verdicts._MOST_BYTES", 100_000)
    for _ in range(2):
        assert await asked_of(verdicts, authority, range(4)) == [0, 1, 2, 3]
        assert await asked_of(verdicts, authority, range(4)) == []
        assert await asked_of(verdicts, authority, range(4, 6)) == [4, 5]
        assert await asked_of(verdicts, authority, range(2, 6)) == []
        assert await asked_of(verdicts, authority, range(2)) == [0, 1]
        verdicts.apply(FeedEntry(revision=1, reset=True))


ORIGINS = frozenset(f"https://{number:03}.{'a' * 288}" for number in range(100))  # 40 KB


@pytest.mark.parametrize("tenants", [1, 40])
async def test_very_many_large_keys_of_some_tenants_make_nobody_elses_unknown(
    verdicts: Verdicts, authority: Authority, tenants: int
) -> None:
    known = await verdicts.of(KEY)
    authority.allowed_origins = ORIGINS
    for number in range(5000):
        authority.holder = f"hoarder {number % tenants}"
        await verdicts.of(Credential(text=f"pk_{number}", kind="publishable"))
    assert verdicts.of_known_key("pk_0") is None, "there was no room"
    assert verdicts.of_known_key("pk_4999") is not None
    assert verdicts.of_known_key(KEY.text) is known


async def test_what_has_ended_leaves_before_what_has_not(
    verdicts: Verdicts, authority: Authority, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.verdicts._MOST_BYTES", 10_000)
    authority.holder = "of old"
    await asked_of(verdicts, authority, range(2))
    clock.seconds += 119
    verdicts.apply(FeedEntry(revision=1))
    authority.holder = "tenant"
    await asked_of(verdicts, authority, range(2, 6))
    assert await asked_of(verdicts, authority, range(2, 6)) == []


async def test_a_verdict_that_is_void_makes_room(
    verdicts: Verdicts, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.verdicts._MOST_BYTES", 5000)
    for key in range(20):
        await asked_of(verdicts, authority, range(key, key + 1))
        verdicts.apply(FeedEntry(revision=1, changed_ids=(f"subject of sk_{key}",)))
    await asked_of(verdicts, authority, range(2))
    assert await asked_of(verdicts, authority, range(2)) == []


@pytest.mark.parametrize("lifetime_seconds", [120.0, 3.0, 2.0])
async def test_a_key_whose_verdict_soon_ends_is_asked_for_again(
    verdicts: Verdicts, authority: Authority, clock: MovedClock, lifetime_seconds: float
) -> None:
    authority.lifetime_seconds = lifetime_seconds
    known = await verdicts.of(KEY)
    while verdicts.of_known_key(KEY.text) is not None:
        clock.seconds += 0.5
        verdicts.apply(FeedEntry(revision=1))
        assert clock.seconds < known.principal.expires_at
    assert known.principal.expires_at - clock.seconds <= 62
