"""Kept pairs become shards: plan, one map unit per fetched part, one reduce unit per shard."""
