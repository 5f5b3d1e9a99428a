"""wit-builder: from query lists to class-balanced image-text shards, and on to a trained CLIP."""

__version__ = "0.1.0"
