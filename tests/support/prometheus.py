"""Metrics as Prometheus reads them."""

import re
from typing import Final

LINE: Final = re.compile(r'^([a-z_0-9]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)$')
"""A sample, as Prometheus's text format has it."""
LABEL: Final = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"')

Metrics = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Metrics:
    """Read the text as Prometheus does: each metric once, with its type before its samples."""
    found: Metrics = {}
    types: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types, line
            types[name] = kind
        elif not line.startswith("# HELP "):
            sample = LINE.match(line)
            assert sample is not None, line
            name, labels, value = sample.groups()
            base = re.sub("_(bucket|sum|count)$", "", name) if name not in types else name
            assert base in types, line
            if types[base] == "counter":
                assert name.endswith("_total"), line
            key = (name, frozenset((label, _unescaped(text)) for label, text in LABEL.findall(labels or "")))
            assert key not in found, line
            found[key] = float(value)
    assert text == "" or text.endswith("\n")
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), text)


def of(metrics: Metrics, name: str, **labels: str) -> float:
    """Return the value of a sample."""
    return metrics[name, frozenset(labels.items())]
