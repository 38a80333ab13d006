"""The teacher: a moving average of the student that labels target images.

Mean teacher (Tarvainen and Valpola, NeurIPS 2017), with DACS's quality weight (Tranheden et al.,
WACV 2021), as in DAFormer, HRDA and PiPa (DAFormer@mmseg/models/uda/dacs.py). Options help if few
pixels are sure or few classes are found: weights balanced over the classes, labels that spare the
classes which they do not name, and alignment of the class shares with the source's.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipa.batch import CropPair, Unlabelled
from pipa.errors import PipaError, from_0_to_1
from pipa.models.segmenter import Segmenter
from pipa.uda.pseudo import Pseudo, PseudoWeight, pseudo_label, unnamed_classes


class Teacher(nn.Module):
    """A copy of a student that follows it and never gets a gradient.

    In training mode its dropout and stochastic depth are off, and its batch norms use the
    statistics of the batch, as in the release: parameters are averaged, but the running statistics
    of norms are neither copied nor averaged; they come from the images that it labels.

    Args:
        student: The network to copy.
        momentum: Maximum of alpha, the momentum of the moving average (DAFormer: 0.999).
        confidence: Minimum probability of a sure pixel (DACS: 0.968).
        pseudo_weight: Weight of a pseudo-label: "share", the papers' q_T, of the whole batch as
            in the code of DACS, DAFormer, HRDA and PiPa (DAFormer's paper: of each image);
            "confidence", 1 for sure pixels; "balanced", 1 for sure pixels and the surer half of
            each class.
        align_shares: Exponent that pulls the class shares of the predictions towards those of the
            source's labels (see `ShareAlignment`), 0 .. 1; 0: no change.
        marginal: Spare the classes that the labels of an image do not name: its pixels then say
            "my label or one of these" (see `cross_entropy`).

    Raises:
        PipaError: `confidence` or `align_shares` is not in 0 .. 1.
    """

    def __init__(
        self,
        student: Segmenter,
        *,
        momentum: float = 0.999,
        confidence: float = 0.968,
        pseudo_weight: PseudoWeight = "share",
        align_shares: float = 0.0,
        marginal: bool = False,
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        from_0_to_1(confidence, "method.confidence")
        self.momentum, self.confidence = momentum, confidence
        self.pseudo_weight: PseudoWeight = pseudo_weight
        self.marginal = marginal
        self.alignment = (
            ShareAlignment(student.num_classes, exponent=align_shares) if align_shares else None
        )
        self.train()

    def train(self, mode: bool = True) -> "Teacher":
        """Set the mode of the network and its batch norms; other modules stay in evaluation mode.

        The network itself needs the mode: HRDA passes all windows at once for its batch norms.
        """
        super().train(mode)
        for module in self.network.modules():
            if module is not self.network and not isinstance(module, _BatchNorm):
                module.training = False
        return self

    @torch.no_grad()
    def follow(self, student: Segmenter, step: int) -> None:
        """Move to `alpha * teacher + (1 - alpha) * student`.

        alpha is `min(1 - 1 / (step + 1), momentum)`: a plain mean over the first steps.

        Args:
            student: The student to follow, with the same parameters.
            step: Number of the step; step 0 copies the parameters.
        """
        alpha = min(1 - 1 / (step + 1), self.momentum)
        mine: list[Tensor] = list(self.network.parameters())
        theirs: list[Tensor] = list(student.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - alpha)  # one kernel for all of them

    @torch.no_grad()
    def observe(self, label: Int[Tensor, "b h w"]) -> None:
        """Count the classes of source labels for `align_shares`; without that, do nothing."""
        if self.alignment is not None:
            self.alignment.observe(label)

    @torch.no_grad()
    def label(self, target: Unlabelled, pair: CropPair | None = None) -> Pseudo:
        """Label target images and the two crops of a pair; images are RGB in [0, 1].

        Crops that lie in the target get their part of its labels, without a further pass.
        """
        with castable_once(self.network):
            logits = self.network(target.image)
        if self.alignment is not None:
            logits = self.alignment(logits, target.valid)
        pseudo = pseudo_label(
            logits, target.valid, self.confidence, pseudo_weight=self.pseudo_weight
        )
        if self.marginal:
            pseudo.unnamed = unnamed_classes(pseudo.label, pseudo.weight, logits.shape[1])
        if pair is not None and pair.corner is not None:
            planes = map(pair.cut, (pseudo.label, pseudo.weight, pseudo.confidence, pseudo.sure))
            first, second = zip(*planes, strict=True)
            pseudo.pair = Pseudo(*first), Pseudo(*second)
            for crop in pseudo.pair:
                crop.unnamed = pseudo.unnamed
        elif pair is not None:
            pseudo.pair = self.label(pair.first), self.label(pair.second)
        return pseudo


@contextmanager
def castable_once(network: nn.Module) -> Iterator[None]:
    """Let autocast keep the half-precision weights of a frozen network until the step ends.

    It keeps those that require a gradient, and would cast the others anew in each call: HRDA calls
    its backbone and its heads twice. Within, nothing may record gradients. Lightning turns the
    cache off: a weight cast without gradients would have none in a later call that needs them.
    """
    assert not torch.is_grad_enabled()
    device = next(network.parameters()).device.type
    on, half = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    network.requires_grad_(True)
    try:
        with torch.autocast(device, dtype=half, enabled=on, cache_enabled=True):
            yield
    finally:
        network.requires_grad_(False)


class ShareAlignment(nn.Module):
    """Distribution alignment: pull the class shares of predictions towards the source's.

    Probabilities are multiplied by (source share / predicted share) ** exponent and renormalised
    (Berthelot et al., ReMixMatch, ICLR 2020). The target need not have the source's shares, so the
    ratio is clipped, and an exponent below 1 corrects it only in part. Both shares are running
    averages over batches, kept in buffers, so that a resumed run continues exactly.

    Args:
        num_classes: Number of classes, k.
        exponent: Exponent of the ratio, in (0, 1]; 1 corrects the shares in full, unless clipped.
        momentum: Momentum of the running averages; 0.99 averages over about 100 batches.

    Raises:
        PipaError: `exponent` is not in (0, 1].
    """

    source: Tensor
    """Decaying sum of the class shares of the source's labels, (k,); 0 before the first."""
    predicted: Tensor
    """Decaying sum of the class shares of the predictions on the target, (k,)."""
    limits = 0.1, 10.0
    """Limits of the ratio of the shares."""

    def __init__(self, num_classes: int, *, exponent: float, momentum: float = 0.99) -> None:
        super().__init__()
        if not 0 < exponent <= 1:
            raise PipaError(
                f"is {exponent}, must be from 0 (off) to 1 (in full)", "--method.align_shares"
            )
        self.exponent, self.momentum = exponent, momentum
        self.register_buffer("source", torch.zeros(num_classes))
        self.register_buffer("predicted", torch.zeros(num_classes))

    def observe(self, label: Int[Tensor, "b h w"]) -> None:
        """Add a batch of source labels to the running average; skip 255.

        With rare class sampling these are the shares in the drawn crops, where rare classes are
        more frequent than in the source.
        """
        k = len(self.source)
        count = self.source.new_zeros(k + 1)  # the last one counts 255
        ids = label.flatten().clamp(max=k)
        count.scatter_add_(0, ids, torch.ones_like(ids, dtype=count.dtype))
        self._average(self.source, count[:k])

    def forward(
        self, logits: Float[Tensor, "b k h w"], valid: Bool[Tensor, "b h w"]
    ) -> Float[Tensor, "b k h w"]:
        """Return logits whose softmax is aligned; before the first `observe`, they are unchanged.

        Args:
            logits: The teacher's logits of target images.
            valid: Pixels that count for the predicted shares.
        """
        logits = logits.float()
        probability = logits.softmax(dim=1) * valid[:, None]
        self._average(self.predicted, probability.sum(dim=(0, 2, 3)))
        ratio = _shares(self.source) / _shares(self.predicted)
        ratio = torch.where(self.source.any() & self.predicted.any(), ratio, 1.0)
        return logits + self.exponent * ratio.clamp(*self.limits).log().view(1, -1, 1, 1)

    def _average(self, total: Tensor, count: Float[Tensor, " k"]) -> None:
        """Add the shares of a batch; a batch without pixels adds nothing."""
        total.mul_(self.momentum).add_(count / count.sum().clamp(min=1))


def _shares(total: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Normalise a decaying sum to shares, each at least 1e-6, so that 0 / 0 becomes 1."""
    return (total / total.sum()).clamp(min=1e-6)
