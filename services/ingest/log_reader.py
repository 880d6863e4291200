"""Reads a lane's frames from the log, in order."""

import time
from contextlib import suppress
from datetime import datetime

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from chassis.errors import Unavailable
from services.ingest.errors import UnreadableLogError
from services.ingest.log import Extent, Log

#: A lane without data is asked about so often: each time is three requests, and lanes without data are most of all.
_SILENCE_SECONDS = 2.0
#: So many answers in a row must say that this is not the log of the position. A server that was cut off from the others
#: a moment ago, or has begun to lead, tells of a log that was.
_ANSWERS = 3


class LogReader:
    """Reads a lane's frames in order, from a position on, without gaps.

    Its consumer is ephemeral and acknowledges nothing: the position is kept with the state, in Postgres.
    """

    def __init__(self, stream: Log, lane: int, position: int, made_at: datetime | None) -> None:
        """`made_at`: of which log the position is; None: of whichever is there at first."""
        self._log = stream
        self._lane = lane
        #: The stream's sequence of the last frame handed out.
        self.position = position
        self.made_at = made_at
        #: Frames that are still to come, as of the last fetch; None where that is not known.
        self.pending: int | None = None
        self._subscription: JetStreamContext.PullSubscription | None = None
        #: Of the consumer: how many frames were handed out, and how many the server has said that it sent.
        self._delivered = self._sent = 0
        #: When the consumer last showed that it is there, in seconds of the monotonic clock.
        self._heard_at = 0.0
        #: Answers in a row that told of another log than the position's.
        self._answers_amiss = 0

    async def fetch(self, most: int, wait_seconds: float) -> list[tuple[int, bytes]]:
        """The next frames with their positions, at most `most`; none where none came in time. Raises Unavailable."""
        try:
            messages = await self._fetch(most, wait_seconds)
        except Unavailable:
            await self.close()
            raise
        frames = self._in_order(messages)
        if len(frames) < len(messages):  # something was lost on the way: read on from the last good position
            await self.close()
        return frames

    async def _fetch(self, most: int, wait_seconds: float) -> list[Msg]:
        with self._log.asking():
            subscription = self._subscription or await self._subscribe()
            messages: list[Msg] = []
            with suppress(TimeoutError):
                messages = await subscription.fetch(most, timeout=wait_seconds)
            if messages:
                self._heard_at = time.monotonic()
            elif self._sent > self._delivered:
                # Sent before this fetch, which began with all that had come: lost with a connection. The server sends
                # nothing twice: read on from the last good position.
                await self.close()
            elif self.pending or time.monotonic() - self._heard_at >= _SILENCE_SECONDS:
                await self._check_alive(subscription)
            return messages

    def _in_order(self, messages: list[Msg]) -> list[tuple[int, bytes]]:
        frames: list[tuple[int, bytes]] = []
        for message in messages:
            metadata = message.metadata
            if metadata.sequence.consumer != self._delivered + 1:
                break
            self._delivered += 1
            self.position = metadata.sequence.stream
            self.pending = metadata.num_pending
            frames.append((self.position, message.data))
        return frames

    async def _subscribe(self) -> JetStreamContext.PullSubscription:
        await self._log.ensure()
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=self.position + 1,
            ack_policy=AckPolicy.NONE,
            filter_subject=self._log.subject(self._lane),
            inactive_threshold=30,
            mem_storage=True,
            num_replicas=1,
        )
        info = await self._log.jetstream.add_consumer(self._log.stream, config)
        await self._check_log(info.num_pending or 0)
        self._delivered = self._sent = 0
        self._subscription = await self._log.jetstream.pull_subscribe_bind(consumer=info.name, stream=self._log.stream)
        self.pending = info.num_pending
        self._heard_at = time.monotonic()
        return self._subscription

    async def _check_log(self, pending: int) -> None:
        """Raises UnreadableLogError where this is not the log that the position is of, and Unavailable while that may
        yet turn out to be wrong. To be called once there is a consumer: it does not outlive its log, and none is made
        by a server that is cut off."""
        connection = self._log.connection
        extent = await self._log.extent()
        another = self._another(extent)
        if not (amiss := another or await self._gap(pending)):
            self.made_at, self._answers_amiss = extent.made_at, 0
            return
        self._answers_amiss += 1
        if self._answers_amiss >= _ANSWERS:
            raise UnreadableLogError(amiss)
        if another:  # which frames there are the leader says, whichever server is asked
            self._log.distrust(connection)
        raise Unavailable(f"The log is asked again: {amiss}.", retry_after_seconds=1.0)

    def _another(self, extent: Extent) -> str:
        """Why a log cannot be the one that the position is of; empty where it may be."""
        if self.made_at is not None and extent.made_at != self.made_at:
            return f"the log was made anew at {extent.made_at}; the committed position is of another one"
        if extent.last < self.position:
            return f"the log ends at {extent.last}, before the committed position {self.position}"
        return ""

    async def _gap(self, pending: int) -> str:
        """Why the log may lack frames behind the position; empty where it has them. Frames are deleted in their order,
        and those that are committed alone, so that the one at the position stays."""
        if self.position and pending and not await self._log.has(self.position):
            return f"the log has no frame at the committed position {self.position}; those behind it may be gone too"
        return ""

    async def _check_alive(self, subscription: JetStreamContext.PullSubscription) -> None:
        """Silence may mean that the server forgot the consumer, as it does when it restarts, that it is cut off, or
        that what it sent was lost on the way."""
        info = await subscription.consumer_info()
        self._sent = info.delivered.consumer_seq if info.delivered else 0
        self.pending = (info.num_pending or 0) + self._sent - self._delivered
        await self._log.extent()
        self._heard_at = time.monotonic()

    async def close(self) -> None:
        """Forgets the consumer; the server drops it when it has been idle for a while."""
        subscription, self._subscription = self._subscription, None
        self.pending = None
        if subscription is not None:
            with suppress(NatsError, TimeoutError):
                await subscription.unsubscribe()
