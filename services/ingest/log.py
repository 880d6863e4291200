"""The durable log between receiver and aggregator: a JetStream stream with one subject a lane.

The stream takes the subjects of as many lanes as there are: whoever is told of another number is refused by the server,
until the log is grouped anew (`regrouping`). File storage, `discard=new`, bounded by bytes, no `max_age`; the server
must run with `sync_interval: always`, so that an acknowledged frame is on disk.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import Literal, NamedTuple

from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.errors import APIError, NotFoundError

from chassis import logs
from chassis.errors import Unavailable
from chassis.settings import credentials
from chassis.tasks import in_background
from services.ingest import metrics
from services.ingest.domain import LanePlace
from services.ingest.settings import LogSettings

log = logs.get(__name__)

#: Error code of JetStream for a stream that has no room left.
STREAM_FULL = 10077
#: A server that was gone to gets so long before it is left again.
_BETWEEN_MOVES_SECONDS = 3.0


class Extent(NamedTuple):
    """Which log there is: one that was made anew begins to count from 1 again."""

    made_at: datetime
    #: Its newest position.
    last: int


class Log:
    """The stream: making it, its state, purging it."""

    def __init__(self, client: Client, settings: LogSettings) -> None:
        self.client = client
        self.jetstream: JetStreamContext = client.jetstream(timeout=5)
        self.stream = settings.stream
        self._settings = settings
        self._made = False
        self._distrusted = asyncio.Event()

    def subject(self, lane: int | Literal["*"], lanes: int = 0) -> str:
        """Where a lane's frames are, of so many lanes; 0: of as many as the settings say."""
        lanes = lanes or self._settings.lanes
        return f"{self.stream}.{'lane' if lanes == 1 else f'lanes{lanes}'}.{lane}"

    @property
    def _closed(self) -> str:
        return f"{self.stream}.closed.0"

    @property
    def connection(self) -> int:
        """The number of the present connection."""
        return self.client.stats["reconnects"]

    def distrust(self, connection: int) -> None:
        """Says that what the server should have answered over that connection did not come.

        It may be cut off from the others of its cluster, while this connection to it is perfectly well. A connection
        that has been left already says nothing of the present one.
        """
        if connection == self.connection:
            self._distrusted.set()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Around what is asked of the log: what goes wrong there is Unavailable, and the server distrusted."""
        if not self.client.is_connected:
            raise Unavailable("The log is not connected.", retry_after_seconds=1.0)
        connection = self.connection
        try:
            yield
        except (NatsError, TimeoutError, OSError) as error:
            self.distrust(connection)
            if isinstance(error, NotFoundError):  # a consumer, or the log itself: that is made by who asks next
                self._made = False
            raise Unavailable(f"The log is away: {type(error).__name__}.", retry_after_seconds=1.0) from error

    async def move_on(self) -> None:
        """Goes to another server of the cluster when the present one is distrusted, for ever."""
        while True:
            await self._distrusted.wait()
            if len(self._settings.nats_urls) > 1:
                log.warning("another server of the log is asked, this one does not answer")
                await self.client.force_reconnect()
            await asyncio.sleep(_BETWEEN_MOVES_SECONDS)
            self._distrusted.clear()

    async def ensure(self) -> None:
        """Makes the stream where there is none; its bounds follow the settings. Raises Unavailable."""
        if self._made:
            return
        with self.asking():
            await self._make(self._configuration())
        self._made = True

    def _configuration(self) -> StreamConfig:
        return StreamConfig(
            name=self.stream,
            subjects=[self.subject("*")],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_bytes=self._settings.log_most_bytes,
            max_age=0,
            num_replicas=self._settings.log_replicas,
        )

    async def _make(self, wanted: StreamConfig) -> None:
        try:
            found = (await self.jetstream.stream_info(self.stream)).config
        except NotFoundError:
            await self.jetstream.add_stream(wanted)
            log.info("log made", stream=self.stream)
            return
        self._check_lanes(found)
        if (found.max_bytes, found.num_replicas) != (wanted.max_bytes, wanted.num_replicas):
            await self.jetstream.update_stream(wanted)
            log.info("log bounded anew", stream=self.stream, most_bytes=wanted.max_bytes)

    def _check_lanes(self, found: StreamConfig) -> None:
        if found.subjects != [self.subject("*")]:
            raise Unavailable(
                f"The log takes {', '.join(found.subjects or ())}, which are not the {self._settings.lanes} lanes of"
                " PULSEGATE_LOG_LANES: set it back, or regroup the log.",
                retry_after_seconds=10.0,
            )

    async def _info(self) -> StreamInfo:
        """The stream as the cluster has it. Raises Unavailable.

        A server that is cut off from the others goes on telling the stream's last state; that it knows of no leader it
        says only of itself.
        """
        await self.ensure()
        with self.asking():
            await self.jetstream.account_info()
            info = await self.jetstream.stream_info(self.stream)
        self._check_lanes(info.config)
        metrics.LOG_FILL.set(info.state.bytes / self._settings.log_most_bytes)
        return info

    async def probe(self) -> None:
        """A health check: the stream answers. Also publishes how full it is."""
        await self._info()

    async def fill(self) -> float:
        """The part of its bytes that is taken, 0 to 1. Raises Unavailable."""
        return (await self._info()).state.bytes / self._settings.log_most_bytes

    async def extent(self) -> Extent:
        """Which log this is, and how far it goes. Raises Unavailable."""
        info = await self._info()
        if info.created is None:
            raise Unavailable("The log does not say when it was made.")
        return Extent(info.created, info.state.last_seq)

    async def has(self, position: int) -> bool:
        """Whether the frame at a position is there, of whichever lane. Raises Unavailable."""
        with self.asking():
            try:
                await self.jetstream.get_msg(self.stream, position)
            except NotFoundError:
                return False
        return True

    async def close(self) -> int | None:
        """Has the server refuse all frames, and waits for those that it had let in. Returns of how many lanes it took
        them; None where it was closed, or where there is no log yet. Raises Unavailable."""
        with self.asking(), suppress(NotFoundError):
            taken = (await self.jetstream.stream_info(self.stream)).config.subjects or []
            await self._take_only(self._closed)
            await self._wait_for_all_before()
            place = self._place(taken[0])
            return place.lanes if place else None
        return None

    async def _wait_for_all_before(self) -> None:
        try:
            await self.jetstream.publish(self._closed, b"", stream=self.stream)
        except APIError as error:  # a full log refuses it, when its turn has come
            if error.err_code != STREAM_FULL:
                raise

    async def open(self, lanes: int) -> None:
        """Has the server take the frames of so many lanes alone, where there is a log. Raises Unavailable."""
        with self.asking(), suppress(NotFoundError):
            await self._take_only(self.subject("*", lanes))
            await self.jetstream.purge_stream(self.stream, subject=self._closed)

    async def _take_only(self, subject: str) -> None:
        found = (await self.jetstream.stream_info(self.stream)).config
        await self.jetstream.update_stream(found.evolve(subjects=[subject]))

    async def held(self) -> dict[LanePlace, int]:
        """The newest position of every lane that has frames, of whatever number. Raises Unavailable."""
        held: dict[LanePlace, int] = {}
        with self.asking(), suppress(NotFoundError):
            info = await self.jetstream.stream_info(self.stream, subjects_filter=f"{self.stream}.>")
            for subject in info.state.subjects or ():
                if place := self._place(subject):
                    held[place] = (await self.jetstream.get_last_msg(self.stream, subject)).seq or 0
        return held

    async def forget(self, place: LanePlace) -> None:
        """Deletes all frames of a lane but the last one, which may be at the position that other lanes begin with.
        Raises Unavailable."""
        with self.asking():
            await self.jetstream.purge_stream(self.stream, subject=self.subject(place.lane, place.lanes), keep=1)

    def _place(self, subject: str) -> LanePlace | None:
        """The lane of a subject (0 where it stands for all of them); None where it is none's."""
        _, group, lane = subject.removeprefix(self.stream).split(".")
        if not group.startswith("lane"):
            return None
        return LanePlace(int(group.removeprefix("lane").removeprefix("s") or 1), int(lane.replace("*", "0")))

    async def purge(self, lane: int, below: int, made_at: datetime | None) -> None:
        """Deletes the lane's frames before a position of the log that was made then. Raises Unavailable."""
        if (await self.extent()).made_at != made_at:
            raise Unavailable("The log is not the one of the committed position.")
        with self.asking():
            await self.jetstream.purge_stream(self.stream, seq=below, subject=self.subject(lane))


class _LeavingClient(Client):
    """Leaves a server at once: one that is frozen, or gone, would have to take first what was sent to it."""

    async def _attempt_reconnect(self) -> None:
        if isinstance(self._transport, TcpTransport) and (writer := self._transport._io_writer):
            writer.transport.abort()
        await super()._attempt_reconnect()


@asynccontextmanager
async def connected(settings: LogSettings, name: str) -> AsyncIterator[Log]:
    """The log, over a connection that reconnects for ever and is closed at the end. Does not wait for the server."""

    async def report(error: Exception) -> None:
        log.debug("log connection", reason=str(error) or type(error).__name__)

    client = _LeavingClient()
    connecting = asyncio.create_task(_connect(client, settings, name, report), name="connect to the log")
    stream = Log(client, settings)
    try:
        async with in_background(stream.move_on()):
            yield stream
    finally:
        connecting.cancel()
        with suppress(asyncio.CancelledError):
            await connecting
        await client.close()


async def _connect(
    client: Client, settings: LogSettings, name: str, report: Callable[[Exception], Awaitable[None]]
) -> None:
    urls = settings.following("nats_urls")
    user, password = credentials(settings.nats_urls[0])
    await client.connect(
        list(settings.nats_urls),
        name=name,
        error_cb=report,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.25,  # type: ignore[arg-type]  # any number of seconds
        connect_timeout=2,
        ping_interval=5,
        max_outstanding_pings=2,
        pending_size=16 << 20,
        # Asked for at each connection, because they may change; also for the servers of which another one tells, whose
        # addresses come without.
        user=(lambda: credentials(urls()[0])[0]) if password else None,
        password=(lambda: credentials(urls()[0])[1]) if password else None,
        token=(lambda: credentials(urls()[0])[0]) if user and not password else None,
    )
