"""Which changes a definition may undergo in place: those that leave every existing series what it was.

Help and unit texts, a further label that is not required, and wider values of a label. Everything else would make old
and new series differ in kind, and needs a definition of another name.
"""

from collections.abc import Iterator, Mapping

from chassis.errors import Conflict
from services.config.domain import Label, MetricDraft, MetricSpec


def refuse_other_kind(old: MetricSpec, draft: MetricDraft) -> None:
    """Raises Conflict where name or type would change: the draft need not even be valid for that."""
    breaks = {}
    if draft.name != old.name:
        breaks["name"] = f'cannot change from "{old.name}"'
    if draft.type is not None and draft.type != old.type:
        breaks["type"] = f"cannot change from {old.type}"
    _refuse(breaks)


def refuse_breaking(old: MetricSpec, new: MetricSpec) -> None:
    """Raises Conflict where the change, of neither name nor type, cannot be made in place; it names every member."""
    _refuse(dict(_breaks(old, new)))


def _refuse(breaks: Mapping[str, str]) -> None:
    if not breaks:
        return
    listed = "; ".join(f"{member} {why}" for member, why in breaks.items())
    raise Conflict(
        f"This change needs a new definition: {listed}. Define a metric of another name, and delete this one when"
        " nothing sends it any more.",
        details={"fields": dict(breaks)},
    )


def _breaks(old: MetricSpec, new: MetricSpec) -> Iterator[tuple[str, str]]:
    if new.native_histogram != old.native_histogram:
        yield "nativeHistogram", f"cannot change from {str(old.native_histogram).lower()}"
    elif new.buckets != old.buckets:
        yield "buckets", "cannot change, since counts in old and new buckets do not add up"
    if new.objectives != old.objectives:
        yield "objectives", "cannot change"
    if new.gauge_merge != old.gauge_merge:
        yield "gaugeMerge", f"cannot change from {old.gauge_merge}"
    yield from _label_breaks(old, new)


def _label_breaks(old: MetricSpec, new: MetricSpec) -> Iterator[tuple[str, str]]:
    old_labels = {label.name: label for label in old.labels}
    new_names = {label.name for label in new.labels}
    if lost := sorted(old_labels.keys() - new_names):
        yield "labels", f"cannot lose {', '.join(lost)}"
    for index, label in enumerate(new.labels):
        path = f"labels[{index}]"
        before = old_labels.get(label.name)
        if before is not None:
            yield from _narrowed(path, before, label)
        elif label.required:
            yield f"{path}.required", f'cannot be true for the new label "{label.name}"'


def _narrowed(path: str, old: Label, new: Label) -> Iterator[tuple[str, str]]:
    if new.required != old.required:
        yield f"{path}.required", f'cannot change for "{old.name}"'
    if new.values and not (old.values and set(old.values) <= set(new.values)):
        yield f"{path}.values", f'can only grow for "{old.name}", or be left out'
    if new.pattern and new.pattern != old.pattern:
        yield f"{path}.pattern", f'can only be left out for "{old.name}"'
    if new.max_distinct and not 0 < old.max_distinct <= new.max_distinct:
        yield f"{path}.maxDistinct", f'can only be raised for "{old.name}", or be 0'
