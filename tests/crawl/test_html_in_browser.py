"""What a real headless Chromium, running no scripts, finds on the same pages.

The rule is stated once more, in JavaScript on the browser's tree. Every answer comes from this
test, whatever the address: no page, and nothing that a page asks for, leaves the machine.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from playwright.sync_api import Route, sync_playwright

from wit_builder.crawl import html
from wit_builder.crawl.html import read_page
from wit_builder.crawl.urls import BadUrlError, normalise, resolve

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
NOTHING_ELSE = "sandbox; default-src 'none'"  # no sub-resources, no <meta http-equiv=refresh>

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="NOT TESTED: a browser's tree needs Chromium: apt-get install chromium",
    ),
]

HERE = "https://page.example/dir/p.html"

RULE = """() => {
  const lazy = "data-src data-original data-lazy-src data-lazy data-image data-url".split(" ");
  const sets = ["srcset", "data-srcset", "data-lazy-srcset"];
  const inline = new Set(("a abbr b bdi bdo big cite code data del dfn em font i ins kbd mark q " +
    "s samp small span strike strong sub sup time tt u var").split(" "));

  const largest = (srcset) => {
    let best = "", most = -1;
    const one = /[\\s,]*([^\\s]*[^\\s,])(?:,|\\s+([^\\s,]*)[^,]*,?|$)/g;
    for (const [, url, size] of srcset.matchAll(one)) {
      const number = /^[\\d.]+[wx]$/.test(size ?? "") ? parseFloat(size) : 1;
      if (number > most) [best, most] = [url, number];
    }
    return best;
  };
  const address = (img) => {
    const of = (element, name) => (element.getAttribute(name) ?? "").trim();
    const src = of(img, "src");
    if (src && !/^data:/i.test(src)) return src;
    const others = [
      ...lazy.map((name) => of(img, name)),
      ...sets.map((name) => largest(of(img, name))),
    ];
    if (img.parentElement?.localName === "picture") {
      const sources = [...img.parentElement.children].filter((e) => e.localName === "source");
      others.push(largest(sources.flatMap((s) => sets.map((name) => of(s, name))).join(", ")));
    }
    return others.find((value) => value) ?? src;
  };
  const prose = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return node.data;
    if (/^(script|style|template)$/.test(node.localName ?? "script")) return " ";
    const text = [...node.childNodes].map(prose).join("");
    return inline.has(node.localName) ? text : ` ${text} `;
  };
  const caption = (img) => {
    const captions = [...document.querySelectorAll("figcaption")];
    for (let figure = img; (figure = figure.parentElement?.closest("figure")); ) {
      const own = captions.find((c) => c.closest("figure") === figure);
      if (own) return prose(own);
    }
    return "";
  };
  const absolute = (value) => {
    try { return value ? new URL(value, document.baseURI).href : null; } catch { return null; }
  };
  return [...document.querySelectorAll("img")].map((img) => [
    absolute(address(img)),
    [img.getAttribute("alt") ?? "", img.getAttribute("title") ?? "", caption(img)],
  ]);
}"""

Found = set[tuple[str, str]]
Differences = dict[str, tuple[Found, Found]]


class Served(NamedTuple):
    """A page and the ``Content-Type`` it comes with."""

    body: bytes
    url: str = HERE
    content_type: str = "text/html; charset=utf-8"


@pytest.fixture(scope="module")
def browser_finds() -> Iterator[Callable[[Served], Found]]:
    """Give what the rule finds on a page in the browser."""
    served: list[Served] = []

    def answer(route: Route) -> None:
        page = served[-1]
        request = route.request
        if request.is_navigation_request() and request.frame.parent_frame is None:
            headers = {"Content-Type": page.content_type, "Content-Security-Policy": NOTHING_ELSE}
            route.fulfill(body=page.body, headers=headers)
        else:
            route.abort()

    def finds(page: Served) -> Found:
        served.append(page)
        tab.goto(page.url, wait_until="domcontentloaded")
        found = set()
        for url, texts in tab.evaluate(RULE):
            if url and (stored := _stored(url)):
                found |= {(stored, text) for t in texts if (text := " ".join(t.split()))}
        return found

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(java_script_enabled=False, service_workers="block")
        context.route("**/*", answer)
        tab = context.new_page()
        yield finds
        browser.close()


def _stored(url: str) -> str | None:
    try:
        return normalise(url)
    except BadUrlError:
        return None


@pytest.fixture(autouse=True)
def _opted_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pages that opt out be compared, too."""
    monkeypatch.setattr(html, "opt_outs", lambda **_: [])


def ours(page: Served) -> Found:
    charset = page.content_type.partition("charset=")[2] or None
    read = read_page(page.body, page.url, charset)
    found = set()
    for href, text, _ in read.pairs:
        try:
            found.add((resolve(href, read.base), text))
        except BadUrlError:
            continue
    return found


def _utf8(body: str) -> Served:
    return Served(body.encode())


IMG = "<img src=a alt='Žluťoučký kůň'>"
AWKWARD = {
    "meta-charset": Served(
        f"<meta charset=iso-8859-2>{IMG}".encode("iso-8859-2"), content_type="text/html"
    ),
    "meta-http-equiv": Served(
        f"<meta http-equiv=content-type content='text/html;charset=windows-1250'>{IMG}".encode(
            "cp1250"
        ),
        content_type="text/html",
    ),
    "meta-in-a-comment": Served(
        f"<!-- <meta charset=koi8-r> --><meta name=description content='charset=koi8-r'>"
        f"<p title='<meta charset=koi8-r>'><meta charset=utf-8>{IMG}".encode(),
        content_type="text/html",
    ),
    "bom-before-header": Served(
        b"\xef\xbb\xbf" + IMG.encode(), content_type="text/html; charset=iso-8859-1"
    ),
    "utf-16": Served(b"\xff\xfe" + IMG.encode("utf-16-le"), content_type="text/html"),
    "header-before-meta": Served(f"<meta charset=koi8-r>{IMG}".encode()),
    "latin1-is-windows-1252": Served(
        b"<img src=a alt='\x93caf\xe9\x94'>", content_type="text/html; charset=iso-8859-1"
    ),
    "wrong-charset": Served(b"<img src=a alt='caf\xe9 \xff dog'>"),
    "unknown-charset": Served(
        f"<meta charset=utf-8>{IMG}".encode(), content_type="text/html; charset=no-such"
    ),
    "shift-jis": Served(
        "<img src=a alt='日本語'>".encode("cp932"), content_type="text/html; charset=Shift_JIS"
    ),
    "gb2312": Served(
        "<img src=a alt='中文'>".encode("gb18030"), content_type="text/html; charset=gb2312"
    ),
    "nothing-declared": Served(IMG.encode(), content_type="text/html"),
    "nul-bytes": Served(b"<p>\0</p><img src=a alt='a\0b'><img src=b alt=c>"),
    "base": _utf8("<base href='../b/'><base href='/no/'><img src=a alt=x><img src=/r alt=y>"),
    "base-after": _utf8("<img src=a alt=x><base href='//other.example/b/c'>"),
    "base-without-href": _utf8("<base target=_top><base href='/b/'><img src=a alt=x>"),
    "base-data": _utf8("<base href='data:x'><img src=a alt=x>"),
    "base-in-body": _utf8("<body><p><base href='/b/'><img src=a alt=x>"),
    "base-in-svg": _utf8("<svg><base href='/b/'></base></svg><img src=a alt=x>"),
    "srcset": _utf8(
        "<img srcset='s.jpg 320w, l.jpg 1280w, m.jpg 640w' alt=a>"
        "<img srcset='a.jpg, b.jpg 2x' alt=b>"
        "<img srcset='/w_3,h_2/a.jpg 300w,/w_6,h_4/a.jpg 600w' alt=c><img srcset=' , ' alt=d>"
        "<img srcset='x.jpg 1.5x, y.jpg 1x,' alt=e><img srcset='a.jpg 640w 480h, b.jpg 320w' alt=f>"
    ),
    "lazy": _utf8(
        "<img src='data:image/gif,x' data-src=a alt=a><img data-original=b alt=b>"
        "<img src='DATA:x' data-lazy-srcset='c 1x, d 2x' alt=c><img src=' ' data-url=e alt=d>"
        "<img src='data:x' alt=e><img alt=f><img src=real data-src=other alt=g>"
    ),
    "picture": _utf8(
        "<picture><source srcset='s 320w'><source srcset='l 960w, m 640w'><img alt=a></picture>"
        "<picture><source srcset=s><img src='data:x' alt=b></picture>"
        "<picture><source srcset=s><img src=c alt=c></picture><source srcset=s><img alt=d>"
        "<picture><p><source srcset=s><img alt=e></p></picture>"
    ),
    "noscript-in-head": _utf8(
        "<head><noscript><img src=a alt=x></noscript><base href='/b/'></head><img src=b alt=y>"
    ),
    "noscript-in-body": _utf8(
        "<img src='data:x' class=lazy alt=x><noscript><img src=a alt=x></noscript>"
        "<table><noscript><img src=b alt=y></noscript><tr><td>z</table>"
    ),
    "not-in-the-tree": _utf8(
        "<script>'<img src=a alt=a>'</script><!-- <img src=a alt=b> --><!--><img src=a alt=c>"
        "<!---->"
        "<template><img src=a alt=d></template><textarea><img src=a alt=e></textarea>"
        "<title><img src=a alt=f></title><style><img src=a alt=g></style><xmp>"
        "<img src=a alt=h></xmp>"
        "<iframe><img src=a alt=i></iframe><script><!--<script></script>"
        "<img src=a alt=j>--></script>"
        "<svg><script><img src=a alt=k></script></svg><!--x--!><img src=a alt=l>"
        "<select><img src=a alt=m></select><svg><title><img src=a alt=n></title></svg>"
    ),
    "image": _utf8("<image src=a alt=x><svg><image href=a alt=y /></svg>"),
    "svg": _utf8(
        "<svg><desc><img src=a alt=x></desc><g><img src=b alt=y></g></svg><p><img src=c alt=z>"
        "<svg><foreignObject><img src=d alt=w></foreignObject></svg><math><mi>"
        "<img src=e alt=v></mi>"
    ),
    "tables": _utf8(
        "<table><img src=a alt=a><tr><img src=b alt=b><td><img src=c alt=c><table><td>"
        "<img src=d alt=d></td></table><caption><img src=e alt=e></table><tr><img src=f alt=f>"
    ),
    "figures": _utf8(
        "<figure><figure><img src=a><figcaption>in</figcaption></figure><img src=b alt=B>"
        "<figcaption>out <b>bo</b>ld<br>line<script>no</script></figcaption></figure>"
        "<figure><figure><img src=c></figure><div><figcaption><h3>One</h3>two</figcaption></div>"
        "<figcaption>second</figcaption></figure><figcaption>none</figcaption><img src=d title=T>"
        "<figure><img src=e><figcaption> <noscript>shown</noscript><!--no--> </figcaption></figure>"
    ),
    "entities": _utf8(
        "<img src='a?x=1&amp;y=2&copy=3&copy;' "
        "alt='&lt;&eacute;&#x1F600; &amp;amp; &notit; &#0;&#128;'>"
        "<img src=b&#47;c alt='a&nbsp;b'><img src='d&#10;e' alt='&zwj;'>"
    ),
    "addresses": _utf8(
        "<img src='\\\\h.example\\a\\b' alt=a><img src='/a\\b?c\\d' alt=b>"
        "<img src='//h.example/x' alt=c>"
        "<img src='../../../x' alt=d><img src='./a/../b/./c' alt=e><img src='?q' alt=f>"
        "<img src='#f' alt=g>"
        "<img src=' \n a\tb\nc ' alt=h><img src='a b&#x20;c' alt=i><img src='é/ü?ß=é' alt=j>"
        "<img src='%7e%41%2f%c3%a9' alt=k><img src='100%' alt=l>"
        "<img src='HTTP://H.EXAMPLE:80/x' alt=m>"
        "<img src='http://h.example:8080' alt=n><img src='https:x' alt=o><img src='https:/x' alt=p>"
        "<img src='http://bücher.example/a' alt=q><img src='http://☃.example/a' alt=r>"
        "<img src='http://u:p@h.example/' alt=s><img src='javascript:x' alt=t>"
        "<img src='http://[::1]/x' alt=u>"
        "<img src='http://h.example/a//b' alt=v><img src='a//b' alt=w>"
        "<img src='http://h_x.example/' alt=x>"
        "<img src='http://1.2.3.4/a' alt=y><img src='http://h.example./a' alt=z>"
        "<img src='a;b=c,d' alt=A>"
        "<img src='a|b\"{}^`[]' alt=B><img src='?a[b]=c|d' alt=C>"
        "<img src='http://exa mple.com/' alt=D>"
        "<img src='http:///h.example/a' alt=E><img src='/%2e%2e/x' alt=F><img src='a?b=%zz' alt=G>"
    ),
    "tag-soup": _utf8(
        "<p><b><img src=a alt=a></p></i></table><a href=x><img src=b alt=b<img src=c alt=c>"
        "<img src=d alt=d/><img/src=e/alt=e><IMG SRC=f ALT=F><img src=g src=h alt=g alt=h>"
        "<img src=i alt=i"
    ),
    "unclosed-quote": _utf8("<img src=a alt=a><img src=b alt='b><img src=c alt=c>"),
    "frameset": _utf8(
        "<frameset><img src=a alt=a></frameset><noframes><img src=b alt=b></noframes>"
    ),
    "plaintext": _utf8("<img src=a alt=a><plaintext><img src=b alt=b>"),
    "deep": _utf8("<div>" * 400 + "<img src=a alt=a>"),
    "white-space": _utf8("<img src=a alt='\u00a0 a\u2003b\u3000\n c\ufeff\u200b'>"),
}

DIFFERENT = {
    "nothing-declared": (
        {("https://page.example/dir/a", "Å½luÅ¥ouÄ\x8dkÃ½ kÅ¯Åˆ")},
        {("https://page.example/dir/a", "Žluťoučký kůň")},
        "a browser falls back to the reader's charset, here windows-1252; we take it for UTF-8",
    ),
    "base-in-svg": (
        {("https://page.example/dir/a", "x")},
        {("https://page.example/b/a", "x")},
        "an element named base is a base to us in SVG, too: where it was seen, it was meant",
    ),
}
"""Awkward pages on which they differ: what only the browser finds, what only we find, and why."""


def test_awkward_pages(browser_finds: Callable[[Served], Found]) -> None:
    """On hand-made pages we find what a browser finds, but for what is explained."""
    assert _differences(browser_finds, AWKWARD) == {n: d[:2] for n, d in DIFFERENT.items()}


def test_real_pages(browser_finds: Callable[[Served], Found], data_dir: Path) -> None:
    """On real pages of shops, forums and blogs in many languages we find what a browser finds."""
    pages = _saved_pages(data_dir)
    assert sum(len(ours(page)) for page in pages.values()) > 500
    assert _differences(browser_finds, pages) == {}


def test_crawled_pages(browser_finds: Callable[[Served], Found], common_crawl_dir: Path) -> None:
    """On pages as Common Crawl got them we find what a browser finds."""
    (warc,) = common_crawl_dir.glob("*.warc")
    pages = _crawled_pages(warc)
    assert pages
    assert _differences(browser_finds, pages) == {}


def _differences(finds: Callable[[Served], Found], pages: dict[str, Served]) -> Differences:
    found = {name: (finds(page), ours(page)) for name, page in pages.items()}
    return {
        n: (theirs - mine, mine - theirs) for n, (theirs, mine) in found.items() if theirs != mine
    }


def _saved_pages(data_dir: Path) -> dict[str, Served]:
    """Every 24th: they are in UTF-8, whatever they declare."""
    urls = json.loads((data_dir / "pages.json").read_bytes())
    chosen = sorted(urls)[::24]
    return {n: Served((data_dir / "pages" / n).read_bytes(), normalise(urls[n])) for n in chosen}


def _crawled_pages(warc: Path) -> dict[str, Served]:
    pages = {}
    with warc.open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
            kind = record.http_headers.get("Content-Type") or ""
            if kind.startswith("text/html"):
                url = record.headers["WARC-Target-URI"]
                pages[url] = Served(record.reader.read(), normalise(url), kind)
    return pages
