"""Other projects' checkpoints."""
