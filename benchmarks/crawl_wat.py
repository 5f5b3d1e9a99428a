"""How fast a WAT gives its pictures and their texts, beside cc2dataset and beside reading alone.

    python benchmarks/crawl_wat.py [--megabytes 300] [--data .data]

The WAT is what Common Crawl's extractor would have made of real pages (``web_corpus.py``). In
turns, several times: FastWARC reads its records and nothing is done with them; cc2dataset's own
function for one file extracts pairs of URL and alt, as a list; ours, ``wit_builder.crawl.wat.run``,
writes candidates and rejections to local disk, opt-outs obeyed, URLs normalised, repeats dropped.
Then several such files by one worker process and by two.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

from fastwarc.warc import ArchiveIterator

from benchmarks import web_corpus, web_peer
from benchmarks.web_turns import medians, two_beside_one, versions
from wit_builder.crawl import wat
from wit_builder.crawl.candidates import Output
from wit_builder.crawl.wat import WatJob


def read_alone(place: str) -> int:
    """Return how many records a file has."""
    with Path(place).open("rb") as stream:
        return sum(1 for _ in ArchiveIterator(stream, parse_http=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--files", type=int, default=4)
    options = parser.parse_args()
    print(versions("fastwarc", "numba", "pyarrow"), "; ", *web_peer.PACKAGES)
    process_wat = web_peer.process_wat(options.data)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "corpus.warc.wat.gz")
        made = web_corpus.write(place, options.data, options.megabytes, "wat")
        job = partial(WatJob, str(place))
        ours = wat.run(job(Output.of(folder, "counted"))).counts
        theirs = sum(1 for _ in process_wat(str(place), "image"))
        print(f"{made.raw_bytes / 1e6:.0f} MB, {made.file_bytes / 1e6:.0f} packed, ", end="")
        print(f"of {made.html_bytes / 1e6:.0f} MB of HTML; ours: {ours}; theirs: {theirs} pairs")
        best = medians(
            {
                "records alone": lambda: read_alone(str(place)),
                "cc2dataset": lambda: list(process_wat(str(place), "image")),
                "ours": lambda: wat.run(job(Output.of(folder, "unit"))),
            },
            options.repeats,
        )
        report(made, best)
        two_beside_one(wat.run, job, options.files, options.repeats)


def report(made: web_corpus.Corpus, best: dict[str, float]) -> None:
    """Print speeds and ratios."""
    for name, seconds in best.items():
        speed = made.raw_bytes / 1e6 / seconds
        print(f"{name:14} {seconds:6.2f} s {speed:6.0f} MB/s {made.pages / seconds:8,.0f} pages/s")
    print(f"ours beside cc2dataset: {best['cc2dataset'] / best['ours']:.2f}")
    print(f"ours beside records alone: {best['records alone'] / best['ours']:.2f}")


if __name__ == "__main__":
    main()
