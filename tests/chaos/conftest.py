"""Fixture `pipeline`: receiver and aggregator between real servers; see `tests/integration/ingest`."""

from tests.integration.ingest.conftest import pipeline

__all__ = ["pipeline"]
