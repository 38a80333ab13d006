"""The losses of a student and a discriminator (AdaptSegNet: Tsai et al., CVPR 2018).

The discriminator learns to tell source from target by the student's predictions, `L_d`; the student
learns to make its predictions for the target pass for source, `L_adv`. Both are the same binary
cross entropy.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pipa.losses.info_nce import at_least_float32


def domain_cross_entropy(logits: Float[Tensor, "b 1 h w"], *, source: bool) -> Float[Tensor, ""]:
    """Mean cross entropy of all of the discriminator's logits with the label of one domain.

    Source has the label 0 and target the label 1, as in the code of AdaptSegNet and ADVENT; the
    logit is that of the target.

    Args:
        logits: The discriminator's logits.
        source: Whether the label is that of the source, or of the target.

    Returns:
        The loss >= 0; log 2 for a discriminator that cannot tell them apart.
    """
    logits = at_least_float32(logits)
    return F.softplus(logits if source else -logits).mean()


def probability(logits: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
    """Softmax, AdaptSegNet's input of the discriminator; in float32 even under autocast."""
    return at_least_float32(logits).softmax(dim=1)
