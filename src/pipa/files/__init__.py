"""Files on disk: reading and writing images, class colours, and atomic writes."""
