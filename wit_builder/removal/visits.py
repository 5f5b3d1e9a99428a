"""Takes named pairs out of what a live crawl keeps of the pages it has seen.

A page that has not changed since is not asked for again: its pairs come from there, and would come
again. A part of a visit (``tables.VISITED``) has a row a page; its pictures are lists in it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wit_builder import storage
from wit_builder.crawl.columns import I64, resolve_urls
from wit_builder.crawl.uids import pair_uids
from wit_builder.removal.blanking import Step
from wit_builder.removal.finding import Mask, Names

FOLDER = "sites"

_PICTURES = ["hrefs", "texts", "texts_from"]
"""Lists that belong together, an element a picture."""


class Visited(Step):
    """A part of a visit, whose pages are to have a picture less."""

    def is_needed(self) -> bool:
        """Return whether a page has a named pair."""
        columns = ["base", "final_url", *_PICTURES]
        with storage.open_arrow(self.url) as file:
            parquet = pq.ParquetFile(file)
            if not set(columns) <= set(parquet.schema_arrow.names):
                return False
            batches = parquet.iter_batches(1 << 12, columns=columns, use_threads=False)
            return any(self._pictures(pa.Table.from_batches([b]))[1].any() for b in batches)

    def _blanked(self, rows: list[pa.RecordBatch]) -> pa.Table:
        table = pa.Table.from_batches(rows)
        page, named = self._pictures(table)
        ends = np.cumsum(np.bincount(page[~named], minlength=table.num_rows))
        offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
        columns = {name: table[name] for name in table.column_names}
        for name in _PICTURES:
            values = table[name].combine_chunks().flatten().filter(pa.array(~named))
            kind = table.schema.field(name).type
            columns[name] = pa.ListArray.from_arrays(offsets, values, type=kind)
        return pa.table(columns, schema=table.schema)

    def _pictures(self, table: pa.Table) -> tuple[I64, Mask]:
        """Return of every picture its page's row, and whether its pair is named."""
        hrefs, texts = (table[name].combine_chunks() for name in ("hrefs", "texts"))
        lengths = pc.list_value_length(hrefs).to_numpy()
        page = np.repeat(np.arange(table.num_rows), lengths)
        if not len(page):
            return page, np.zeros(0, np.bool_)
        bases = pc.coalesce(table["base"], table["final_url"]).combine_chunks()
        urls, _ = resolve_urls(hrefs.flatten(), bases, page)
        uids = pair_uids(urls.fill_null(""), texts.flatten())
        return page, self.names.mask(pa.table([uids, urls], ["uid", "url"]))


def plan(root: str, names: Names) -> Iterator[Step]:
    """Yield what is to be done in the parts of all visits of a run.

    Raises:
        StorageError: a part cannot be read.
    """
    folder = storage.join(root, FOLDER)
    for site in storage.list_folders(folder):
        for url in storage.list_files(storage.join(folder, site), ".parquet"):
            step = Visited(url, names)
            if step.is_needed():
                yield step
