"""What was accepted of a batch, as records of the log."""

from chassis import tracing
from services.ingest import records
from services.ingest.decoding import Batch
from services.ingest.records import Distribution, Kind, Origins, Record
from services.ingest.validation import Validated

_NOBODY = bytes(records.ID_BYTES)


def encoded_records(whose: tuple[bytes, bytes], batch: Batch, validated: Validated, received_ms: int) -> list[bytes]:
    """One record, or two where totals of cumulative sources are among others. `whose`: ids of tenant and project."""
    made = []
    if validated.label_sets or validated.distributions or not validated.totals:
        made.append(_increments(whose, batch, validated, received_ms))
    if validated.totals:
        made.append(_totals(whose, validated, received_ms))
    return [records.encode(record) for record in made]


def _increments(whose: tuple[bytes, bytes], batch: Batch, validated: Validated, received_ms: int) -> Record:
    tenant_id, project_id = whose
    label_sets, distributions = validated.label_sets, validated.distributions.values()
    reporters = validated.reporters
    return Record(
        kind=Kind.DELTA,
        tenant_id=tenant_id,
        project_id=project_id,
        producer=batch.producer,
        sequence=batch.sequence,
        floor=batch.floor,
        received_ms=received_ms,
        definitions=[compiled.facts for compiled in validated.definitions],
        ids=b"".join([each.id for each in label_sets]),
        values=records.float64s(validated.values),
        timestamps=records.int64s(validated.timestamps) if any(validated.timestamps) else b"",
        distributions=[distribution for _, distribution in distributions],
        identities=b"".join([each.identity for each in (*label_sets, *(each for each, _ in distributions))]),
        reporters=b"".join([reporters.get(at, _NOBODY) for at in range(len(label_sets))]) if reporters else b"",
        traceparent=tracing.sampled_traceparent(),
        exemplars=list(validated.exemplars.values()),
    )


def _totals(whose: tuple[bytes, bytes], validated: Validated, received_ms: int) -> Record:
    """Without a producer: what is counted follows from the totals before."""
    tenant_id, project_id = whose
    scalars = [(each, each.value) for each in validated.totals if not isinstance(each.value, Distribution)]
    others = [(each, each.value) for each in validated.totals if isinstance(each.value, Distribution)]
    every = [each for each, _ in (*scalars, *others)]
    parts = [each.part for each, _ in scalars]
    baselines = bytes([each.origin.baseline for each in every])
    return Record(
        kind=Kind.CUMULATIVE,
        tenant_id=tenant_id,
        project_id=project_id,
        received_ms=received_ms,
        definitions=[compiled.facts for compiled in validated.definitions],
        ids=b"".join([each.label_set.id for each, _ in scalars]),
        values=records.float64s([value for _, value in scalars]),
        distributions=[distribution for _, distribution in others],
        identities=b"".join([each.label_set.identity for each in every]),
        traceparent=tracing.sampled_traceparent(),
        origins=Origins(
            b"".join([each.origin.source for each in every]),
            records.int64s([each.origin.taken_ns for each in every]),
            records.int64s(parts) if any(parts) else b"",
            baselines if any(baselines) else b"",
        ),
        exemplars=list(validated.exemplars.values()),
    )
