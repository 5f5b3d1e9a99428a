"""The trainer: streams shards, trains a CLIP, evaluates it."""
