"""The shard format: WebDataset tars with a manifest, a block table and a table of samples each."""
