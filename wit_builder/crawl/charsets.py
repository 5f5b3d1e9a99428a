"""From a page's bytes to UTF-8: which charset they are in is told as the HTML Standard tells it.

The labels are those of the Encoding Standard (WHATWG Encoding, 4.2), not what Python's codecs are
called: it lacks a fifth of them, and means something else by ``iso-8859-1`` or ``gb2312``.
"""

from __future__ import annotations

import codecs
import re

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LABELS_OF = {
    "utf-8": "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 x-unicode20utf8",
    "utf-16-le": "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 utf-16le",
    "utf-16-be": "unicodefffe utf-16be",
    "cp866": "866 cp866 csibm866 ibm866",
    "iso8859-2": "csisolatin2 iso-8859-2 iso-ir-101 iso8859-2 iso88592 iso_8859-2 iso_8859-2:1987 "
    "l2 latin2",
    "iso8859-3": "csisolatin3 iso-8859-3 iso-ir-109 iso8859-3 iso88593 iso_8859-3 iso_8859-3:1988 "
    "l3 latin3",
    "iso8859-4": "csisolatin4 iso-8859-4 iso-ir-110 iso8859-4 iso88594 iso_8859-4 iso_8859-4:1988 "
    "l4 latin4",
    "iso8859-5": "csisolatincyrillic cyrillic iso-8859-5 iso-ir-144 iso8859-5 iso88595 iso_8859-5 "
    "iso_8859-5:1988",
    "iso8859-6": "arabic asmo-708 csiso88596e csiso88596i csisolatinarabic ecma-114 iso-8859-6 "
    "iso-8859-6-e iso-8859-6-i iso-ir-127 iso8859-6 iso88596 iso_8859-6 iso_8859-6:1987",
    "iso8859-7": "csisolatingreek ecma-118 elot_928 greek greek8 iso-8859-7 iso-ir-126 iso8859-7 "
    "iso88597 iso_8859-7 iso_8859-7:1987 sun_eu_greek",
    "iso8859-8": "csiso88598e csisolatinhebrew hebrew iso-8859-8 iso-8859-8-e iso-ir-138 iso8859-8 "
    "iso88598 iso_8859-8 iso_8859-8:1988 visual csiso88598i iso-8859-8-i logical",
    "iso8859-10": "csisolatin6 iso-8859-10 iso-ir-157 iso8859-10 iso885910 l6 latin6",
    "iso8859-13": "iso-8859-13 iso8859-13 iso885913",
    "iso8859-14": "iso-8859-14 iso8859-14 iso885914",
    "iso8859-15": "csisolatin9 iso-8859-15 iso8859-15 iso885915 iso_8859-15 l9",
    "iso8859-16": "iso-8859-16",
    "koi8-r": "cskoi8r koi koi8 koi8-r koi8_r",
    "koi8-u": "koi8-ru koi8-u",
    "mac-roman": "csmacintosh mac macintosh x-mac-roman",
    "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    "cp874": "dos-874 iso-8859-11 iso8859-11 iso885911 tis-620 windows-874",
    "cp1250": "cp1250 windows-1250 x-cp1250",
    "cp1251": "cp1251 windows-1251 x-cp1251",
    "cp1252": "ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 "
    "iso8859-1 iso88591 iso_8859-1 iso_8859-1:1987 l1 latin1 us-ascii windows-1252 x-cp1252",
    "cp1253": "cp1253 windows-1253 x-cp1253",
    "cp1254": "cp1254 csisolatin5 iso-8859-9 iso-ir-148 iso8859-9 iso88599 iso_8859-9 "
    "iso_8859-9:1989 l5 latin5 windows-1254 x-cp1254",
    "cp1255": "cp1255 windows-1255 x-cp1255",
    "cp1256": "cp1256 windows-1256 x-cp1256",
    "cp1257": "cp1257 windows-1257 x-cp1257",
    "cp1258": "cp1258 windows-1258 x-cp1258",
    "gb18030": "gb18030 chinese csgb2312 csiso58gb231280 gb2312 gb_2312 gb_2312-80 gbk iso-ir-58 "
    "x-gbk",
    "big5hkscs": "big5 big5-hkscs cn-big5 csbig5 x-x-big5",
    "euc_jp": "cseucpkdfmtjapanese euc-jp x-euc-jp",
    "iso2022_jp": "csiso2022jp iso-2022-jp",
    "cp932": "csshiftjis ms932 ms_kanji shift-jis shift_jis sjis windows-31j x-sjis",
    "cp949": "cseuckr csksc56011987 euc-kr iso-ir-149 korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 "
    "ksc_5601 windows-949",
}
CODECS = {label: codec for codec, labels in _LABELS_OF.items() for label in labels.split()}
"""Python's codec of each label. Not of those that mean no charset (``iso-2022-kr`` and the like, of
which a browser shows nothing) and not of ``x-user-defined``: they are unknown to us."""

# The prescan (WHATWG HTML, 13.2.3.2). White space is not Python's: it has no vertical tab.
_PRESCAN_BYTES = 1024
_WS = rb"[\t\n\f\r ]"
_MARKUP = re.compile(
    rb"<(?:!(?=--).*?(?:-->|\Z)|(meta)(?=[\t\n\f\r /])|/?[a-z][^\t\n\f\r >]*()|[!/?][^>]*)",
    re.IGNORECASE | re.DOTALL,
)
_ATTRIBUTE = re.compile(
    rb"(?:_|/)*([^\t\n\f\r />][^\t\n\f\r />=]*)"
    rb"""(?:_*=_*(?:"([^"]*)(?:"|\Z)|'([^']*)(?:'|\Z)|([^\t\n\f\r >]*)))?""".replace(b"_", _WS)
)
_CHARSET = re.compile(
    rb"""charset_*=_*(?:"([^"]*)"|'([^']*)'|([^\t\n\f\r ;"'][^\t\n\f\r ;]*))""".replace(b"_", _WS),
    re.IGNORECASE,
)
_XML = re.compile(
    rb"""<\?xml_[^>]*?encoding_*=_*(?:"([^">]*)"|'([^'>]*)')[^>]*>""".replace(b"_", _WS)
)


def as_utf8(body: bytes, charset: str | None = None) -> bytes:
    """Return a page in UTF-8: its charset is told by byte-order mark, header or ``<meta>``.

    Without any, and where the label is unknown, it is taken for UTF-8. Bytes that do not fit become
    U+FFFD (those of UTF-8 itself in the parser).
    """
    for mark, name in _BOMS:
        if body.startswith(mark):
            return _recode(body[len(mark) :], name)
    return _recode(body, _codec(charset or "") or _declared(body[:_PRESCAN_BYTES]) or "utf-8")


def _recode(body: bytes, name: str) -> bytes:
    return body if name == "utf-8" else body.decode(name, "replace").encode()


def _codec(label: str | bytes) -> str | None:
    text = label.decode("ascii", "replace") if isinstance(label, bytes) else label
    return CODECS.get(text.strip("\"' \t\n\f\r").lower())


def _declared(head: bytes) -> str | None:
    """Return the codec that a page declares in its first bytes, in a ``<meta>`` or else for XML."""
    codec = _in_metas(head)
    if codec is None and (found := _XML.match(head)):
        codec = _codec(_value(found, 1))
    # a declaration that could be read as ASCII is not in UTF-16
    return "utf-8" if codec and codec.startswith("utf-16") else codec


def _in_metas(head: bytes) -> str | None:
    at = 0
    while found := _MARKUP.search(head, at):
        at = found.end()
        if found[1] or found[2] is not None:
            attributes, at = _attributes(head, at)
            whole = at < len(head)
            if found[1] and whole and (codec := _of_meta(attributes)):
                return codec
    return None


def _attributes(head: bytes, at: int) -> tuple[dict[bytes, bytes], int]:
    """Return a tag's attributes, of equal names the first, and where they end."""
    attributes: dict[bytes, bytes] = {}
    while found := _ATTRIBUTE.match(head, at):
        attributes.setdefault(found[1].lower(), _value(found, 2))
        at = found.end()
    return attributes, at


def _of_meta(attributes: dict[bytes, bytes]) -> str | None:
    if (label := attributes.get(b"charset")) is not None:
        return _codec(label)
    if attributes.get(b"http-equiv", b"").lower() != b"content-type":
        return None
    found = _CHARSET.search(attributes.get(b"content", b""))
    return _codec(_value(found, 1)) if found else None


def _value(found: re.Match[bytes], first: int) -> bytes:
    """Return the one of a pattern's groups that took part: quoted so, quoted otherwise, bare."""
    return next((value for value in found.groups()[first - 1 :] if value is not None), b"")
