"""Images and labels, from disk to a `Batch`."""
