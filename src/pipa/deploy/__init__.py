"""A trained segmenter at work."""
