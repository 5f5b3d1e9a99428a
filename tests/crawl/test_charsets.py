from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.crawl.charsets import CODECS, as_utf8

CZECH = "<img src=a alt='Žluťoučký'>"


@pytest.mark.parametrize(
    ("body", "charset"),
    [
        pytest.param(CZECH.encode(), None, id="nothing-declared"),
        pytest.param(CZECH.encode("cp1250"), "windows-1250", id="header"),
        pytest.param(CZECH.encode("cp1250"), ' "X-CP1250" ', id="header-in-quotes"),
        pytest.param(b"\xef\xbb\xbf" + CZECH.encode(), "iso-8859-1", id="bom-wins"),
        pytest.param(b"\xff\xfe" + CZECH.encode("utf-16-le"), None, id="utf-16"),
        pytest.param(b"\xfe\xff" + CZECH.encode("utf-16-be"), None, id="utf-16-be"),
        pytest.param(CZECH.encode(), "no-such-charset", id="unknown-label"),
        pytest.param(CZECH.encode(), "base64", id="not-a-text-encoding"),
    ],
)
def test_what_is_told_outside(body: bytes, charset: str | None) -> None:
    """A byte-order mark tells the charset, else the header, else it is UTF-8."""
    assert as_utf8(body, charset).decode() == CZECH


@pytest.mark.parametrize(
    ("head", "codec"),
    [
        ("<meta charset=iso-8859-2>", "iso8859-2"),
        ("<META/CHARSET = 'x-cp1250' >", "cp1250"),
        ("<meta http-equiv=Content-Type content='text/html; charset=windows-1250'>", "cp1250"),
        ("<meta content='charset = \"cp1250\"' http-equiv='CONTENT-TYPE'>", "cp1250"),
        ("<meta name=description content='charset=cp1250'>", "utf-8"),
        ("<meta http-equiv=refresh content='charset=cp1250'>", "utf-8"),
        ("<!-- <meta charset=koi8-r> --><meta charset=cp1250>", "cp1250"),
        ("<!--><meta charset=cp1250>-->", "cp1250"),
        ("<!--> --- <meta charset=koi8-r>--><meta charset=cp1250>", "koi8-r"),
        ("<!-- <meta charset=koi8-r>", "utf-8"),
        ("<!doctype html x='><meta charset=cp1250>'>", "cp1250"),
        ("<p title='<meta charset=koi8-r>'><meta charset=cp1250>", "cp1250"),
        ("<metal charset=koi8-r><meta data-charset=koi8-r><meta charset=cp1250>", "cp1250"),
        ("<meta charset=cp1250 charset=koi8-r>", "cp1250"),
        ("<meta charset=nonsense><meta charset=cp1250>", "cp1250"),
        ("<meta charset=nonsense http-equiv=content-type content='charset=koi8-r'>", "utf-8"),
        ("<meta charset=utf-16>", "utf-8"),
        ("<?xml version='1.0' encoding='windows-1250'?><html>", "cp1250"),
        ("<?xml version='1.0' encoding='koi8-r'?><meta charset=cp1250>", "cp1250"),
        ("< meta charset=koi8-r>", "utf-8"),
        ("</meta charset=koi8-r>", "utf-8"),
        ("<meta charset='koi8-r", "utf-8"),
        (" " * 1000 + "<meta charset=koi8-r>", "koi8-r"),
        (" " * 1010 + "<meta charset=koi8-r>", "utf-8"),
    ],
)
def test_what_a_page_declares(head: str, codec: str) -> None:
    """The first meta that declares a known charset counts, as the HTML Standard's prescan goes."""
    text = "я" if codec == "koi8-r" else "Ž"
    assert as_utf8(head.encode() + text.encode(codec)).decode() == head + text


def test_latin1_means_windows_1252() -> None:
    """The label iso-8859-1 is read as the Encoding Standard says."""
    assert as_utf8(b"\x93caf\xe9\x94", "ISO-8859-1").decode() == "“café”"


def test_wrong_charset() -> None:
    """Bytes that do not fit the declared charset become replacement characters; the rest stays."""
    assert as_utf8(b"\xd2\xff dog", "windows-1253").decode() == "\ufffd\ufffd dog"


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("ไทย", "windows-874 dos-874 tis-620 iso-8859-11"),
        ("שלום", "iso-8859-8-i logical visual csiso88598i iso-8859-8-e windows-1255"),
        ("日本語", "windows-31j x-sjis ms_kanji ms932 shift-jis csshiftjis x-euc-jp csiso2022jp"),
        ("한국어", "windows-949 ks_c_5601-1989 ksc_5601 ksc5601 korean iso-ir-149"),
        ("中文", "gb_2312-80 csgb2312 chinese iso-ir-58 x-gbk cn-big5 x-x-big5 big5-hkscs"),
        ("Привет", "koi koi8 koi8-ru koi8_r x-mac-cyrillic x-mac-ukrainian x-cp1251 cyrillic"),
        ("Ελλάδα", "sun_eu_greek elot_928 ecma-118 greek8 windows-1253"),
        ("عربي", "ecma-114 asmo-708 csiso88596i arabic x-cp1256"),
        ("café", "l1 latin1 mac x-mac-roman x-cp1252 us-ascii unicode csunicode ucs-2 unicodefffe"),
        ("€ café 中文", "x-unicode20utf8 unicode11utf8 utf8 gb2312 gbk utf-16 unicodefeff"),
    ],
)
def test_labels(text: str, labels: str) -> None:
    """Labels of the Encoding Standard are known, most of them not so by Python."""
    for label in labels.split():
        assert as_utf8(text.encode(CODECS[label]), label).decode() == text, label


def test_the_table_is_whole() -> None:
    """All labels of the standard are there but seven that mean no charset, each with a codec."""
    assert len(CODECS) == 228 - 7
    assert {codecs.lookup(codec).name for codec in CODECS.values()} == set(CODECS.values())


MARKUP = "<meta <!-- --> > / = ' \" charset http-equiv <p x"


@given(st.lists(st.sampled_from(MARKUP.split())))
def test_any_markup_is_survived(parts: list[str]) -> None:
    """Whatever tags and comments begin a page, it is read to its end."""
    body = " ".join(parts).encode()
    assert as_utf8(body) == body
