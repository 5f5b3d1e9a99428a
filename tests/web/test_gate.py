"""What a URL says by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.tables import Reason
from wit_builder.web.answer import Refusal
from wit_builder.web.gate import form_refusal, parse


def refused(url: str) -> Reason | None:
    parsed = parse(url)
    found = parsed if isinstance(parsed, Refusal) else form_refusal(parsed)
    return None if found is None else found.reason


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://a.test/x.jpg", None),
        (" HTTPS://A.test:8443/x y.jpg#f ", None),
        ("http://1.1.1.1/", None),
        ("http://[2606:4700::1111]/", None),
        ("http://bücher.example/", None),
        ("http://a.test./", None),
        ("ftp://a.test/", Reason.SCHEME_REFUSED),
        ("file:///etc/passwd", Reason.SCHEME_REFUSED),
        ("/x.jpg", Reason.SCHEME_REFUSED),
        ("", Reason.SCHEME_REFUSED),
        ("http://user@a.test/", Reason.CREDENTIALS_IN_URL),
        ("http://user:secret@a.test/", Reason.CREDENTIALS_IN_URL),
        ("http://2130706433/", Reason.BAD_URL),
        ("http://0x7f000001/", Reason.BAD_URL),
        ("http://127.1/", Reason.BAD_URL),
        ("http://0177.0.0.1/", Reason.BAD_URL),
        ("http://a.test:99999/", Reason.BAD_URL),
        ("http://[::1/", Reason.BAD_URL),
        ("http://8.8.8.8%.evil.example/", Reason.BAD_URL),
        ("http://[2606:4700::1%251]/", Reason.BAD_URL),
        ("http:///x", Reason.BAD_URL),
        (f"http://{'a.' * 125}net./", None),
        (f"http://{'a.' * 125}info/", Reason.BAD_URL),
    ],
)
def test_form(url, expected):
    """Only http and https, no credentials, a host, and no disguised address."""
    assert refused(url) is expected


@given(st.one_of(st.text(), st.text().map(lambda text: "http://" + text)))
def test_any_text_is_survived(url):
    """Whatever stands in an attribute gives a URL or a reason, never an error."""
    assert refused(url) in {None, *Reason}
