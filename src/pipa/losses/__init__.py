"""Losses: functions from tensors to a scalar."""

from pipa.losses.patch_contrast import patch_contrast
from pipa.losses.pixel_contrast import pixel_contrast

__all__ = ["patch_contrast", "pixel_contrast"]
