"""The query list: what to look for, from lists, WordNet and Wikipedia, in that order of precedence.

``build.run_count`` turns one Wikipedia dump into partial counts, ``build.run_build`` turns all
partial counts and the other sources into ``queries.parquet`` and ``summary.json``. ``show`` reads
them back for people. Where CLIP's list came from, and what ours does, is told in
``queries/README.md``.
"""
