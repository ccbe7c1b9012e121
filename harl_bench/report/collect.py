"""Runs and published rows as entries: one method on one task, data set and protocol each."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harl_bench.core.results import Result
from harl_bench.report.distinction import apart, described, drawn, parted, settings
from harl_bench.report.statistics import Estimate, far_seeds

TOY = "Toy numbers: small images, minutes of training. They say nothing about any method."
DEPARTS = "departs from its protocol: "  # how the reason begins
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
TASKS = ("voc", "coco", "cityscapes", "segment", "classify", "masks")
# Checkpoint formats with other weights for each seed (a random initialization, the fit of a mask
# maker), which share a row all the same.
DRAWN = ("random", "masks")

Run = tuple[Path, Result]  # the path of a result.json and what it holds


@dataclass(frozen=True, eq=False)
class Entry:
    """The scores of one row.

    Args:
        method: what trained the weights; "" where nothing states it.
        label: the row's name, where the user gave one.
        digest: the beginning of the weights' SHA-256, where others have the same name.
        metric: how AP was computed on VOC, "11-point" or "area".
        contents: digests of the labels and images, "" where a run is older than they are.
        settings: up to three, with their values, where entries differ in settings or data alone.
        url: of the source of a published row.
        reasons: why it does not compare one to one with others of its table.
    """

    source: Literal["ours", "published"]
    method: str
    task: str
    dataset: str
    protocol: str
    scores: Mapping[str, Estimate]
    checkpoint: str = ""
    sha256: str = ""
    label: str = ""
    digest: str = ""
    engine: str = ""
    metric: str = ""
    contents: str = ""
    settings: tuple[str, ...] = ()
    toy: bool = False
    citation: str = ""
    url: str = ""
    table: str = ""
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    runs: tuple[Run, ...] = ()

    @property
    def name(self) -> str:
        """The row's name: label, method as the papers print it, or the checkpoint's file."""
        method = self.method
        if self.source == "ours":
            method = METHODS.get(method.lower(), method)
        return self.label or method or self.checkpoint

    @property
    def title(self) -> str:
        """The name and what distinguishes it from others of that name."""
        return " ".join((self.name, *self.detail))

    @property
    def detail(self) -> list[str]:
        """The checkpoint, unless the name says it, and the digest."""
        known = ("", self.method.lower(), self.name.lower())
        checkpoint = "" if self.checkpoint.lower() in known else self.checkpoint
        return [text for text in (checkpoint, self.digest) if text]

    @property
    def names(self) -> set[str]:
        """The names by which the user may choose it."""
        return {self.method, self.checkpoint, self.name, self.sha256[:8]} - {""}

    @property
    def identity(self) -> tuple[str, ...]:
        """The weights: entries of equal identity share a row of a table over several tasks."""
        weights = self.method, self.checkpoint, self.sha256, self.digest, self.label
        return self.source, *weights, self.citation, str(self.toy)

    @property
    def order(self) -> tuple[int, str, str]:
        """Sorting key: the papers' order of methods, unknown ones behind."""
        position = {name: i for i, name in enumerate(METHODS)}
        method = (self.method or self.label).lower()
        return position.get(method, len(METHODS)), self.name.lower(), self.checkpoint


def entries_of(runs: Iterable[Run]) -> list[Entry]:
    """Group finished runs that differ in nothing but the seed."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for path, result in runs:
        groups.setdefault(_group(result), []).append((path, result))
    parts = [part for group in groups.values() for part in parted(group)]
    entries = distinguished(_labelled([e for part in parts for e in _entries(part)]))
    entries = _with_settings(_differing(entries))
    position = {task: i for i, task in enumerate(TASKS)}
    return sorted(
        entries,
        key=lambda e: (position.get(e.task, len(TASKS)), e.task, e.dataset, e.protocol, e.order),
    )


def distinguished(entries: list[Entry]) -> list[Entry]:
    """Give a digest to entries of one name and different weights, in every table alike."""
    digests: dict[tuple[str, str], set[str]] = {}
    for entry in entries:
        if entry.sha256:
            digests.setdefault((entry.name, entry.checkpoint), set()).add(entry.sha256)
    ambiguous = {names for names, different in digests.items() if len(different) > 1}
    return [
        replace(e, digest=e.sha256[:8]) if e.sha256 and (e.name, e.checkpoint) in ambiguous else e
        for e in entries
    ]


def plain(text: object) -> str:
    """Return one printable line: control characters, line breaks and broken Unicode are escaped."""
    line = str(text)
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _group(result: Result) -> tuple[str, ...]:
    checkpoint = result.checkpoint
    return (
        result.task,
        result.dataset,
        result.protocol,
        result.engine,
        _metric(result),
        result.method,
        checkpoint.name,
        "" if checkpoint.format in DRAWN else checkpoint.sha256,
        checkpoint.net,
        result.data_fingerprint,
        str(result.toy),
        json.dumps(settings(result.config), sort_keys=True, default=str),
    )


def _differing(entries: list[Entry]) -> list[Entry]:
    """Give a reason to entries of one protocol whose labels or images are known to differ."""
    known: dict[tuple[str, ...], set[str]] = {}
    for e in entries:
        if e.contents:
            known.setdefault(_reading(e), set()).add(e.contents)
    several = {reading for reading, contents in known.items() if len(contents) > 1}
    return [
        replace(
            e, reasons=(*e.reasons, f"measured with {e.contents}, other rows used different ones")
        )
        if e.contents and _reading(e) in several
        else e
        for e in entries
    ]


def _with_settings(entries: list[Entry]) -> list[Entry]:
    """Give the settings that differ to entries that nothing else distinguishes."""
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for e in entries:
        about = e.task, e.dataset, e.protocol, e.engine, e.metric, e.contents
        groups.setdefault((*e.identity, *about), []).append(e)
    own = {
        e: tuple(plain(text) for text in apart(e.runs[0][1], [o.runs[0][1] for o in group]))
        for group in groups.values()
        if len(group) > 1
        for e in group
    }
    return [replace(e, settings=own[e]) if e in own else e for e in entries]


def _reading(entry: Entry) -> tuple[str, ...]:
    """Return the protocol, and the settings of a detection that decide what of the data is read."""
    recipe = entry.runs[0][1].config.get("recipe", {})
    keys = ("MODEL.MASK_ON", "DATALOADER.FILTER_EMPTY_ANNOTATIONS")
    values = [str(recipe.get(key)) for key in keys] if isinstance(recipe, dict) else []
    return (entry.task, entry.dataset, entry.protocol, *values)


def _metric(result: Result) -> str:
    """Return how AP was computed; VOC results that do not say so predate "area"."""
    return result.metric or ("11-point" if result.task == "voc" else "")


def _entries(group: list[Run]) -> list[Entry]:
    parts = drawn(group)
    if len(parts) == 1:
        return [_entry(group)]
    return [replace(_entry(part), digest=plain(part[0][1].checkpoint.sha256[:8])) for part in parts]


def _labelled(entries: list[Entry]) -> list[Entry]:
    """Give each entry its newest label, or the newest of the same weights if its runs have none."""
    newest = [max((r.labelled, plain(r.label)) for _, r in entry.runs) for entry in entries]
    of_weights: dict[tuple[str, str], tuple[str, str]] = {}
    for entry, label in zip(entries, newest, strict=True):
        of_weights[_weights(entry)] = max(label, of_weights.get(_weights(entry), label))
    return [
        replace(entry, label=(label if label[0] else of_weights[_weights(entry)])[1])
        for entry, label in zip(entries, newest, strict=True)
    ]


def _weights(entry: Entry) -> tuple[str, str]:
    first = entry.runs[0][1].checkpoint
    return first.sha256 or first.name, first.net


def _entry(group: list[Run]) -> Entry:
    by_id: dict[str, Run] = {}  # of copies the newest
    for run in sorted(group, key=lambda run: (run[1].seed, run[0])):
        known = by_id.setdefault(run[1].run_id, run)
        if run[1].started > known[1].started:
            by_id[run[1].run_id] = run
    runs = tuple(by_id.values())
    first = runs[0][1]
    warnings = []
    if copies := len(group) - len(runs):
        text = f"{copies} {'copy' if copies == 1 else 'copies'} of these runs left out"
        others = {r.seed for _, r in group if r.metrics != by_id[r.run_id][1].metrics}
        if others:
            text += f", with other scores for seed {', '.join(map(str, sorted(others)))}"
        warnings.append(text)
    scores: dict[str, Estimate] = {}
    undefined: dict[str, list[str]] = {}
    for metric in dict.fromkeys(name for _, result in runs for name in result.metrics):
        pairs = [(result.seed, _finite(result.metrics.get(metric))) for _, result in runs]
        defined = [(seed, value) for seed, value in pairs if value is not None]
        if seeds_without := [str(seed) for seed, value in pairs if value is None]:
            undefined.setdefault(", ".join(seeds_without), []).append(plain(metric))
        if defined:
            seeds, values = zip(*defined, strict=True)
            scores[plain(metric)] = Estimate(values, seeds)
    for metric, estimate in scores.items():
        if far := ", ".join(map(str, far_seeds(estimate))):
            numbers = zip(estimate.seeds, estimate.values, strict=True)
            listed = ", ".join(f"{seed}: {value:.1f}" for seed, value in numbers)
            text = f"seed {far} lies far from the others and stays in ({listed})"
            warnings.append(f"{metric}: {text}")
    for missing, metrics in undefined.items():
        be = "is" if len(metrics) == 1 else "are"
        warnings.append(f"{', '.join(metrics)} {be} not defined for seed {missing}")
    departures = dict.fromkeys(plain(d) for _, result in runs for d in result.departures)
    return Entry(
        source="ours",
        # a result of an earlier version has the format's name where nothing states the method
        method="" if first.method == first.checkpoint.format not in DRAWN else plain(first.method),
        task=plain(first.task),
        dataset=plain(first.dataset),
        protocol=plain(first.protocol),
        scores=scores,
        checkpoint=plain(first.checkpoint.name),
        sha256="" if first.checkpoint.format in DRAWN else plain(first.checkpoint.sha256),
        engine=plain(first.engine),
        metric=plain(_metric(first)),
        contents=next((text for _, r in runs if (text := plain(described(r)))), ""),
        toy=first.toy,
        reasons=tuple(DEPARTS + departure for departure in departures),
        warnings=tuple(warnings),
        runs=runs,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
