"""From candidates to what a round asks for: match, dedup, balance."""
