"""Use of a trained segmenter: prediction and export."""
