"""Losses: functions from tensors to a scalar. They need no network, data or loop of pipa's.

`PixelTerm` and `PatchTerm` add what a training needs: a projection head, a bank, sampling.

Examples:
    >>> F = torch.nn.functional
    >>> vectors = F.normalize(torch.rand(5, 8, 16), dim=2)  # n groups of v unit vectors (n, v, d)
    >>> loss = pipa.losses.pixel_contrast(vectors, torch.tensor([0, 0, 1, 1, 2]))
    >>> loss.shape
    torch.Size([])
    >>> first, second = (F.normalize(torch.rand(50, 16), dim=1) for _ in range(2))  # (n, d)
    >>> bank = F.normalize(torch.rand(80, 16), dim=1)  # candidates for negatives (m, d)
    >>> label, bank_label = torch.randint(3, (50,)), torch.randint(3, (80,))
    >>> sure, surer = torch.full((50,), 0.92), torch.full((50,), 0.95)
    >>> loss = pipa.losses.patch_contrast(
    ...     first, second, bank, label, label, bank_label, sure, surer
    ... )
    >>> bool(loss > 0)  # places of the first crop learn from those of the second, which are surer
    True
"""

from pipa.losses.patch_contrast import patch_contrast
from pipa.losses.pixel_contrast import pixel_contrast

__all__ = ["patch_contrast", "pixel_contrast"]
