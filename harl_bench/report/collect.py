"""Runs and published rows as one kind of thing: an Entry, one method on one task, data set and protocol."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harl_bench.core.results import Result
from harl_bench.report.statistics import Estimate, far_seeds

TOY = "Toy numbers: small pictures, minutes of training. They say nothing about any method."
# Names as the papers print them, in the order of their tables.
METHODS = {
    "random": "Random init",
    "supervised": "Supervised",
    "simclr": "SimCLR",
    "mocov2": "MoCo v2",
    "moco": "MoCo v2",
    "simsiam": "SimSiam",
    "byol": "BYOL",
    "saliency_crop": "Saliency crop",
    "saliency_mask": "Saliency mask",
    "harl": "HARL",
}
TASKS = ("voc", "coco", "classify", "masks")
# Keys of a configuration that differ between the seeds of one experiment without being a setting.
NOT_SETTINGS = frozenset({"seed", "seeds", "output_dir", "out", "weights", "checkpoint"})

DRAWN = (
    "random",
    "masks",
)  # another random initialisation, or fit of a mask maker, for each seed: one row all the same

Found = tuple[Path, Result]


@dataclass(frozen=True, eq=False)
class Entry:
    """One row's worth of scores. `reasons` say why it does not compare one to one with others of its table.

    `metric` is how AP was computed on VOC, "11-point" or "area".
    """

    source: Literal["ours", "published"]
    method: str
    task: str
    dataset: str
    protocol: str
    scores: Mapping[str, Estimate]
    checkpoint: str = ""
    sha256: str = ""
    engine: str = ""
    metric: str = ""
    toy: bool = False
    citation: str = ""
    table: str = ""
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    runs: tuple[Found, ...] = ()

    @property
    def name(self) -> str:
        """The method as the papers print it."""
        return METHODS.get(self.method.lower(), self.method) if self.source == "ours" else self.method

    @property
    def title(self) -> str:
        """Method and checkpoint; a checkpoint named after its method is not said twice."""
        return self.name if self.checkpoint.lower() in ("", self.method.lower()) else f"{self.name} {self.checkpoint}"

    @property
    def identity(self) -> tuple[str, ...]:
        """Which weights: entries of equal identity share a row of a table over several tasks."""
        return self.source, self.method, self.checkpoint, self.sha256, self.citation, str(self.toy)

    @property
    def order(self) -> tuple[int, str, str]:
        """Sorting key: the papers' order of methods, unknown ones behind."""
        known = list(METHODS)
        place = known.index(self.method.lower()) if self.method.lower() in known else len(known)
        return place, self.name.lower(), self.checkpoint


def entries_of(found: Iterable[Found]) -> list[Entry]:
    """Group finished runs that differ in nothing but the seed."""
    groups: dict[tuple[str, ...], list[Found]] = {}
    for path, result in found:
        groups.setdefault(_group(result), []).append((path, result))
    place = {task: i for i, task in enumerate(TASKS)}
    entries = map(_entry, groups.values())
    return sorted(entries, key=lambda e: (place.get(e.task, len(place)), e.task, e.dataset, e.protocol, e.order))


def plain(text: object) -> str:
    """One printable line: control characters, line breaks and broken Unicode in a name are shown escaped."""
    line = str(text)
    return line if line.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _group(result: Result) -> tuple[str, ...]:
    checkpoint = result.checkpoint
    drawn = checkpoint.format in DRAWN
    return (
        result.task, result.dataset, result.protocol, result.engine, _metric(result), result.method, checkpoint.name,
        "" if drawn else checkpoint.sha256, checkpoint.net, result.data_fingerprint, str(result.toy),
        json.dumps(_settings(result.config), sort_keys=True, default=str),
    )  # fmt: skip


def _metric(result: Result) -> str:
    """How AP was computed; every VOC result that does not say so is older than the area and used 11 points."""
    return result.metric or ("11-point" if result.task == "voc" else "")


def _settings(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _settings(v) for k, v in value.items() if str(k).lower().rpartition(".")[2] not in NOT_SETTINGS}
    return value


def _entry(found: list[Found]) -> Entry:
    by_id: dict[str, Found] = {}
    for path, result in sorted(found, key=lambda f: (f[1].seed, f[0])):
        by_id.setdefault(result.run_id, (path, result))
    runs = tuple(by_id.values())
    first = runs[0][1]
    copies = len(found) - len(runs)
    warnings = [f"{copies} {'copy' if copies == 1 else 'copies'} of these runs left out"] if copies else []
    scores: dict[str, Estimate] = {}
    for metric in dict.fromkeys(name for _, result in runs for name in result.metrics):
        pairs = [(result.seed, _finite(result.metrics.get(metric))) for _, result in runs]
        defined = [(seed, value) for seed, value in pairs if value is not None]
        if missing := [str(seed) for seed, value in pairs if value is None]:
            warnings.append(f"{plain(metric)} is not defined for seed {', '.join(missing)}")
        if defined:
            scores[plain(metric)] = Estimate(tuple(v for _, v in defined), tuple(s for s, _ in defined))
    for metric, estimate in scores.items():
        if far := far_seeds(estimate):
            shown = ", ".join(f"{s}: {v:.1f}" for s, v in zip(estimate.seeds, estimate.values, strict=True))
            warnings.append(
                f"{metric}: seed {', '.join(map(str, far))} lies far from the others and stays in ({shown})"
            )
    departures = dict.fromkeys(plain(d) for _, result in runs for d in result.departures)
    return Entry(
        source="ours",
        method=plain(first.method),
        task=plain(first.task),
        dataset=plain(first.dataset),
        protocol=plain(first.protocol),
        scores=scores,
        checkpoint=plain(first.checkpoint.name),
        sha256="" if first.checkpoint.format in DRAWN else plain(first.checkpoint.sha256),
        engine=plain(first.engine),
        metric=plain(_metric(first)),
        toy=first.toy,
        reasons=(f"departs from its protocol: {'; '.join(departures)}",) if departures else (),
        warnings=tuple(warnings),
        runs=runs,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
