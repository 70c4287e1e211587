"""What `promtool check metrics` and a server that scrapes would object to in a text of metrics."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
_RESERVED = ("_bucket", "_sum", "_count")

Key = tuple[str, tuple[tuple[str, str], ...]]


def parse(text: str) -> Mapping[Key, float]:
    """The samples by name and labels, of a text that has no faults."""
    assert not (found := faults(text)), found
    return {(name, labels): value for name, labels, value in _samples(text)}


def faults(text: str) -> list[str]:
    """One sentence for each thing that is wrong."""
    return [*_of_the_form(text), *_of_the_families(text), *_of_the_order(text), *_of_the_histograms(text)]


def kinds(text: str) -> dict[str, str]:
    """The type of each family."""
    return dict(re.findall(r"(?m)^# TYPE (\S+) (\S+)$", text))


def _samples(text: str) -> Iterator[tuple[str, tuple[tuple[str, str], ...], float]]:
    for line in text.splitlines():
        if not line.startswith("#") and (match := _SAMPLE.fullmatch(line)):
            labels = tuple(sorted(_LABEL.findall(match["labels"] or "")))
            yield match["name"], labels, float(match["value"])


def _of_the_form(text: str) -> Iterator[str]:
    if not text.endswith("\n"):
        yield "the last line has no end"
    for line in text.splitlines():
        if re.fullmatch(r"# (HELP \S+ \S.*|TYPE \S+ (counter|gauge|histogram))", line):
            continue
        match = _SAMPLE.fullmatch(line)
        if match is None or _LABEL.sub("", match["labels"] or ""):
            yield f"no sample, HELP or TYPE: {line!r}"
    for key, count in Counter((name, labels) for name, labels, _ in _samples(text)).items():
        if count > 1:
            yield f"{key} is there {count} times"


def _of_the_families(text: str) -> Iterator[str]:
    types, helps = kinds(text), set(re.findall(r"(?m)^# HELP (\S+) ", text))
    for word in ("HELP", "TYPE"):
        for name, count in Counter(re.findall(rf"(?m)^# {word} (\S+) ", text)).items():
            if count > 1:
                yield f"{name} has {count} lines of {word}"
    for name, kind in types.items():
        if name not in helps:
            yield f"{name} has no HELP"
        if (kind == "counter") != name.endswith("_total"):
            yield f"{name} is a {kind}"
        if kind != "histogram" and name.endswith(_RESERVED):
            yield f"{name} ends as a part of a histogram"
        if not re.fullmatch(r"culvert(_[a-z0-9]+)+", name):
            yield f"{name} is no name of this program's metrics"
        if re.search(r"_(milliseconds|ms|minutes|kilobytes|kb|percent)(_|$)", name):
            yield f"{name} is not in a base unit"


def _of_the_order(text: str) -> Iterator[str]:
    types = kinds(text)
    known = {name + suffix for name, kind in types.items() for suffix in _SUFFIXES[kind]}
    last, seen = "", set()
    for name, labels, value in _samples(text):
        if name not in known:
            yield f"{name} belongs to no family"
        family = re.sub("_(bucket|sum|count)$", "", name) if name not in types else name
        if family != last and family in seen:
            yield f"the samples of {family} do not stand together"
        last = family
        seen.add(family)
        if (types.get(family) != "gauge") and not value >= 0:
            yield f"{name} {labels} is {value}"


def _of_the_histograms(text: str) -> Iterator[str]:
    samples = {(name, labels): value for name, labels, value in _samples(text)}
    for name in (name for name, kind in kinds(text).items() if kind == "histogram"):
        series: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        for (one, labels), value in samples.items():
            if one == f"{name}_bucket":
                rest = tuple(pair for pair in labels if pair[0] != "le")
                series.setdefault(rest, []).append((float(dict(labels)["le"]), value))
        for labels, buckets in series.items():
            buckets.sort()
            counts = [count for _, count in buckets]
            if buckets[-1][0] != float("inf"):
                yield f"{name} {labels} has no bucket +Inf"
            if counts != sorted(counts):
                yield f"{name} {labels} has buckets that hold less than those before"
            if samples.get((f"{name}_count", labels)) != counts[-1]:
                yield f"{name} {labels} has another count than its last bucket"
            if (f"{name}_sum", labels) not in samples:
                yield f"{name} {labels} has no sum"
