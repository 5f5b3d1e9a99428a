"""Which charset a real Chromium takes a label for."""

from __future__ import annotations

import shutil
from encodings.aliases import aliases

import pytest
from playwright.sync_api import sync_playwright

from wit_builder.crawl.charsets import CODECS

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
NO_CHARSET = {"replacement", "x-user-defined"}
NAME_OF = """(labels) => labels.map((label) => {
  try { return new TextDecoder(label).encoding; } catch { return null; }
})"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="NOT TESTED: a browser's labels need Chromium: apt-get install chromium",
    ),
]


def test_labels_mean_what_they_mean_to_a_browser() -> None:
    """Labels of one charset there are of one codec here, and no other name that Python knows is."""
    spelled = {alias.replace("_", "-") for alias in aliases} | set(aliases) | set(CODECS)
    labels = sorted(spelled | {f"x-{label}" for label in spelled})
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        names = browser.new_page().evaluate(NAME_OF, labels)
        browser.close()
    theirs = {
        n: name for n, name in zip(labels, names, strict=True) if name not in {None, *NO_CHARSET}
    }
    assert theirs.keys() == CODECS.keys()
    codecs_of: dict[str, set[str]] = {}
    for label, name in theirs.items():
        codecs_of.setdefault(name, set()).add(CODECS[label])
    assert {name: codecs for name, codecs in codecs_of.items() if len(codecs) > 1} == {}
    shared = {"gbk", "gb18030", "iso-8859-8", "iso-8859-8-i"}
    assert len(codecs_of) == len(set(CODECS.values())) + len(shared) // 2
