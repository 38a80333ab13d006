"""Files on disk: images in and out, colours, writing that leaves no half a file."""
