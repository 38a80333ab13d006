"""The game of a student and a discriminator (AdaptSegNet: Tsai et al., CVPR 2018).

The discriminator tells source from target by what the student says of an image, `L_d`; the student
learns to be taken for one that sees the source, `L_adv`. Both are the same binary cross entropy.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pipa.losses.info_nce import at_least_float32


def domain_cross_entropy(logits: Float[Tensor, "b 1 h w"], *, source: bool) -> Float[Tensor, ""]:
    """Mean cross entropy of the discriminator's places with one domain, for all of them.

    Source has the label 0 and target the label 1, as in the code of AdaptSegNet and ADVENT; the
    logit is that of target.

    Args:
        logits: The discriminator's.
        source: Whether source is the right answer, or target.

    Returns:
        The loss >= 0; log 2 where the discriminator cannot tell.
    """
    logits = at_least_float32(logits)
    return F.softplus(logits if source else -logits).mean()


def probability(logits: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
    """What AdaptSegNet shows its discriminator: the softmax, in float32 even under autocast."""
    return at_least_float32(logits).softmax(dim=1)
