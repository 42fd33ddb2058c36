"""X8: the names are in one table of the documentation, and are those of the conventions."""

import re
from pathlib import Path

import pytest
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv._incubating.metrics import messaging_metrics
from opentelemetry.semconv.attributes import error_attributes

from workerbus.otel import Names

PAGE = (Path(__file__).parents[2] / "docs" / "opentelemetry.md").read_text()
NAMES = {value for name, value in vars(Names).items() if name.isupper()}


def test_the_page_has_each_name_once() -> None:
    """X8"""
    assert sorted(re.findall(r"^\| `([a-z_.]+)` \|", PAGE, re.MULTILINE)) == sorted(NAMES)


@pytest.mark.skipif(
    not hasattr(messaging_metrics, "MESSAGING_CLIENT_SENT_MESSAGES"),
    reason="the conventions here are older",
)
def test_names_that_look_like_those_of_the_conventions_are() -> None:
    """X8"""
    modules = (messaging_attributes, messaging_metrics, error_attributes)
    known = {value for module in modules for value in vars(module).values() if isinstance(value, str)}
    assert {name for name in NAMES if not name.startswith("workerbus.")} <= known
