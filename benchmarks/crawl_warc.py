"""How fast a WARC gives its pictures and their texts, beside parsing its pages and no more.

    python benchmarks/crawl_warc.py [--megabytes 320] [--data .data]

The WARC has real pages (``web_corpus.py``). In turns, several times: FastWARC reads its responses,
selectolax parses each body and lists its ``img`` elements, and nothing is done with them; ours,
``wit_builder.crawl.archives.run``, writes candidates and rejections to local disk: charsets found
out, headers and metas obeyed, captions of figures read, URLs resolved and normalised, repeats
dropped. Then several such files by one worker process and by two.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecordType
from selectolax.lexbor import LexborHTMLParser

from benchmarks import web_corpus
from benchmarks.web_turns import medians, two_beside_one, versions
from wit_builder.crawl import archives
from wit_builder.crawl.archives import ArchiveJob
from wit_builder.crawl.candidates import Output
from wit_builder.sections import CrawlSection


def parse_alone(place: str) -> int:
    """Return how many pictures the pages of a file have."""
    pictures = 0
    with Path(place).open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
            pictures += len(LexborHTMLParser(record.reader.read()).css("img"))
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--megabytes", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--files", type=int, default=4)
    options = parser.parse_args()
    print(versions("fastwarc", "selectolax", "numba", "pyarrow"))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "corpus.warc.gz")
        made = web_corpus.write(place, options.data, options.megabytes, "warc")
        job = partial(ArchiveJob, str(place), CrawlSection().max_html_bytes)
        ours = archives.run(job(Output.of(folder, "counted"))).counts
        print(
            f"{made.html_bytes / 1e6:.0f} MB of HTML, {made.file_bytes / 1e6:.0f} packed, ", end=""
        )
        print(f"{parse_alone(str(place)):,} img elements; ours: {ours}")
        best = medians(
            {
                "parse alone": lambda: parse_alone(str(place)),
                "ours": lambda: archives.run(job(Output.of(folder, "unit"))),
            },
            options.repeats,
        )
        for name, seconds in best.items():
            speed = made.html_bytes / 1e6 / seconds
            print(
                f"{name:12} {seconds:6.2f} s {speed:6.0f} MB/s {made.pages / seconds:8,.0f} pages/s"
            )
        print(f"ours beside parsing alone: {best['parse alone'] / best['ours']:.2f}")
        two_beside_one(archives.run, job, options.files, options.repeats)


if __name__ == "__main__":
    main()
