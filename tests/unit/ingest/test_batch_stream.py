"""How a stream of batches ends when its caller is gone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from services.ingest.grpc_api.batch_stream import BatchStream


async def _silent() -> AsyncIterator[pb.StreamBatchesRequest]:
    await asyncio.Event().wait()
    yield pb.StreamBatchesRequest()


async def test_a_caller_that_is_gone_ends_the_stream_quietly() -> None:
    nobody = cast("Any", None)  # no batch comes: neither receiver nor verifier is asked
    answers = cast("Any", BatchStream(nobody, nobody, asyncio.Event()).serve(_silent()))
    assert await anext(answers) == pb.StreamBatchesResponse()
    others = asyncio.all_tasks()
    await answers.aclose()
    assert asyncio.all_tasks() < others
