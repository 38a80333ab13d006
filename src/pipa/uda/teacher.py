"""The teacher: a moving average of the student that labels target images.

Mean teacher (Tarvainen and Valpola, NeurIPS 2017), with DACS's quality weight (Tranheden et al.,
WACV 2021), as in DAFormer, HRDA and PiPa (DAFormer@mmseg/models/uda/dacs.py). Two options help if
few pixels are sure: weights balanced over the classes, and alignment of the class shares with the
source's.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipa.batch import CropPair, Unlabelled
from pipa.errors import PipaError
from pipa.models.segmenter import Segmenter

PseudoWeight = Literal["share", "confidence", "balanced"]
"""The rule that weights pseudo-labels: see `pseudo_label`."""


@dataclass
class Pseudo:
    """The teacher's labels of target images: p_T and their quality q_T."""

    label: Int[Tensor, "b h w"]
    """The most probable class of every pixel, even if its `weight` is 0."""
    weight: Float[Tensor, "b h w"]
    """In [0, 1]: q_T, the share of sure pixels, or 1 for the pixels that count and 0 for the
    others (see `PseudoWeight`); 0 where the target is not valid."""
    confidence: Float[Tensor, "b h w"]
    """Probability of `label`, in [0, 1]."""
    sure: Bool[Tensor, "b h w"]
    """Pixels that count by themselves: those over the threshold or, if the weights are balanced,
    also the surer half of each class; never those that are not valid."""
    pair: "tuple[Pseudo, Pseudo] | None" = None
    """The labels of the first and the second crop of a `CropPair`, each as it is stored."""


class Teacher(nn.Module):
    """A copy of a student that follows it and never gets a gradient.

    In training mode its dropout and stochastic depth are off, and its batch norms use the
    statistics of the batch, as in the release: parameters are averaged, but the running statistics
    of norms are neither copied nor averaged; they come from the images that it labels.

    Args:
        student: The network to copy.
        momentum: Maximum of alpha, the momentum of the moving average (DAFormer: 0.999).
        confidence: Minimum probability of a sure pixel (DACS: 0.968).
        per_image: Compute q_T for each image, as in DAFormer's paper; by default it is the share
            over the whole batch, as in the code of DACS, DAFormer, HRDA and PiPa.
        pseudo_weight: Weight of a pseudo-label: "share", the papers' q_T; "confidence", 1 for sure
            pixels; "balanced", 1 for sure pixels and the surer half of each class.
        align_shares: Exponent that pulls the class shares of the predictions towards those of the
            source's labels (see `ShareAlignment`), 0 .. 1; 0: no change.

    Raises:
        PipaError: `align_shares` is not in 0 .. 1.
    """

    def __init__(
        self,
        student: Segmenter,
        *,
        momentum: float = 0.999,
        confidence: float = 0.968,
        per_image: bool = False,
        pseudo_weight: PseudoWeight = "share",
        align_shares: float = 0.0,
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        self.momentum, self.confidence, self.per_image = momentum, confidence, per_image
        self.pseudo_weight: PseudoWeight = pseudo_weight
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
            logits,
            target.valid,
            self.confidence,
            per_image=self.per_image,
            pseudo_weight=self.pseudo_weight,
        )
        if pair is not None and pair.corner is not None:
            planes = map(pair.cut, (pseudo.label, pseudo.weight, pseudo.confidence, pseudo.sure))
            first, second = zip(*planes, strict=True)
            pseudo.pair = Pseudo(*first), Pseudo(*second)
        elif pair is not None:
            pseudo.pair = self.label(pair.first), self.label(pair.second)
        return pseudo


@contextmanager
def castable_once(network: nn.Module) -> Iterator[None]:
    """Let autocast keep the half-precision weights of a frozen network until the step ends.

    It keeps those that require a gradient, and would cast the others anew in each call: HRDA calls
    its backbone and its heads twice. Within, nothing may record gradients.
    """
    assert not torch.is_grad_enabled()
    network.requires_grad_(True)
    try:
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
                f"is {exponent}", "align_shares", "Give a number from 0 (off) to 1 (in full)."
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


def pseudo_label(
    logits: Float[Tensor, "b k h w"],
    valid: Bool[Tensor, "b h w"],
    threshold: float = 0.968,
    *,
    per_image: bool = False,
    pseudo_weight: PseudoWeight = "share",
) -> Pseudo:
    """Turn logits into pseudo-labels: classes, their probability, and their weight.

    Args:
        logits: The teacher's logits, one plane for each class.
        valid: Pixels whose pseudo-labels may be trusted; the weight is 0 elsewhere.
        threshold: Minimum probability of a sure pixel (DACS: 0.968).
        per_image: Compute q_T for each image instead of once for the batch.
        pseudo_weight: "share": q_T everywhere, the share of *all* pixels that are sure (DACS);
            "confidence": 1 for sure pixels, 0 for the others (FixMatch: Sohn et al., NeurIPS 2020);
            "balanced": 1 for sure pixels and for the surer half of the valid pixels of each class
            of the batch, 0 for the others (the half of each class: CBST, Zou et al., ECCV 2018).
    """
    logits = logits.float()
    best, label = logits.max(dim=1)
    confidence = (best - logits.logsumexp(dim=1)).exp()  # softmax of the best class
    sure = confidence >= threshold
    if pseudo_weight == "share":
        share = sure.float()
        quality = share.mean(dim=(1, 2), keepdim=True) if per_image else share.mean()
        return Pseudo(label, quality * valid, confidence, sure & valid)
    if pseudo_weight == "balanced":
        sure = sure | (confidence >= class_medians(confidence, label, valid, logits.shape[1]))
    sure = sure & valid
    return Pseudo(label, sure.float(), confidence, sure)


def class_medians(
    confidence: Float[Tensor, "*n"],
    label: Int[Tensor, "*n"],
    valid: Bool[Tensor, "*n"],
    num_classes: int,
) -> Float[Tensor, "*n"]:
    """Return, for each pixel, the minimum confidence of the surer half of its class in the batch.

    The half is rounded up, so a class's only pixel belongs to it. In an order by class, and by
    falling confidence within a class, this is the confidence in the middle of the class's run.

    Args:
        confidence: Probability of `label`.
        label: The class of each pixel, in [0, k); any number where a pixel does not count.
        valid: Pixels that count; elsewhere the result has no meaning.
        num_classes: Number of classes, k.
    """
    group = label.where(valid, num_classes).flatten()  # pixels that do not count come last
    order = confidence.flatten().argsort(descending=True)
    order = order[group[order].argsort(stable=True)]
    count = torch.zeros(num_classes + 1, dtype=torch.long, device=group.device)
    count.scatter_add_(0, group, torch.ones_like(group))
    middle = count.cumsum(0) - count + (count + 1) // 2 - 1
    median = confidence.flatten()[order[middle.clamp(min=0)]]
    return median[group].view_as(label)
