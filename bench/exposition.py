"""What the measured processes say about themselves."""

import math
from collections.abc import Mapping

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

#: Upper bound → how many are not above it.
Buckets = Mapping[float, float]


async def scrape(session: aiohttp.ClientSession, port: int) -> str:
    """The exposition of the process whose operations port it is."""
    async with session.get(f"http://127.0.0.1:{port}/metrics", raise_for_status=True) as response:
        return await response.text()


def buckets(exposition: str, name: str) -> Buckets:
    """Of a histogram without labels."""
    return {
        float(sample.labels["le"]): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == f"{name}_bucket"
    }


def total(exposition: str, name: str) -> float:
    """Of all samples of a name."""
    return math.fsum(
        sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == name
    )


def quantile(before: Buckets, after: Buckets, share: float) -> float:
    """Of what came in between; linear inside its bucket, as PromQL's. NaN where nothing came."""
    grown = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    rank, below, below_bound = share * grown[math.inf], 0.0, 0.0
    for bound, count in grown.items():
        if count >= rank and count > below:
            if math.isinf(bound):
                return below_bound
            return below_bound + (bound - below_bound) * (rank - below) / (count - below)
        below, below_bound = count, bound
    return math.nan
