"""Asking the web: ``gate`` says whether and when, ``client`` asks; used by live crawl and fetch."""
