"""Kept pairs become shards: plan, find the pictures, map units of parts, a reduce unit a shard."""
