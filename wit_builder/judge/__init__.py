"""Fetched pictures are judged before packing: ``run`` asks block-lists and filters (``hook``)."""
