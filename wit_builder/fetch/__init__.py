"""Selected pairs become pictures: ``run`` asks, ``image`` makes, ``store`` publishes parts."""
