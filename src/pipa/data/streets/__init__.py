"""Streets: the built-in procedural benchmark."""
