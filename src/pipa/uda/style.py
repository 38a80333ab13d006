"""Restyling of source images by target images: frequencies (FDA) or colours. Labels stay valid.

Images are in [0, 1], as everywhere before the network normalises them, and the result is clamped
to that. Each step draws the images that lend their style from the target images of the batch.
Nothing is learnt.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from pipa.errors import PipaError
from pipa.losses.info_nce import at_least_float32

Style = Literal["none", "fda", "colour"]
"""The property that a source image takes from a target image: see `restyle`."""
FLOOR = 1 / 255**2
"""Variance of one grey level: colours that vary less are noise, which must not be amplified."""
_DEFAULTS = {"none": 0.0, "fda": 0.01, "colour": 1.0}


@dataclass(frozen=True)
class Restyle:
    """The arguments of `restyle` that a method uses for its source images.

    Raises:
        PipaError: `strength` or `probability` is outside its range.
    """

    style: Style
    strength: float | None = None
    probability: float = 1.0
    turn: bool = True

    def __post_init__(self) -> None:
        _checked(self.style, self.strength, self.probability)

    def __call__(
        self,
        image: Float[Tensor, "b 3 h w"],
        target: Float[Tensor, "n 3 h w"],
        generator: Generator | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Restyle source images by target images."""
        return restyle(image, target, generator, **vars(self))


def restyle(
    image: Float[Tensor, "b 3 h w"],
    target: Float[Tensor, "n 3 h w"],
    generator: Generator | None = None,
    *,
    style: Style = "fda",
    strength: float | None = None,
    probability: float = 1.0,
    turn: bool = True,
) -> Float[Tensor, "b 3 h w"]:
    """Give each source image the style of a target image that is drawn.

    The colour with which `data.pad` fills up an image is taken for the image's own: a batch does
    not say which pixels are filled, so images far smaller than the crop lend, and get, less colour.

    Args:
        image: Source images, RGB in [0, 1].
        target: Target images, RGB in [0, 1].
        generator: Decides which images change, which ones lend, and the turn; on the images' device
            or on the CPU.
        style: "none"; "fda", the lowest frequencies' amplitudes (`swap_amplitudes`); "colour", the
            mean and covariance of the colours (`transfer_colours`).
        strength: For fda, half the side of the block of frequencies, as a share of the shorter side
            of the image, 0 .. 0.5 (None: 0.01, the smallest in the paper); for colour, the share of
            the new colours in the result, 0 .. 1 (None: 1). 0 changes nothing.
        probability: Probability that an image is restyled.
        turn: For colour, turn the whitened colours at random, so that any colour may become any
            other: for domains whose colours do not correspond, such as bright objects on dark and
            dark ones on light.

    Raises:
        PipaError: `strength` or `probability` is outside its range.
    """
    strength = _checked(style, strength, probability)
    if style == "none" or strength == 0:
        return image
    device = generator.device if generator is not None else image.device
    draw = torch.rand(2, len(image), generator=generator, device=device).to(image.device)
    lender = target[(draw[1] * len(target)).long().clamp(max=len(target) - 1)]
    restyled = draw[0] < probability
    if style == "fda":
        result = swap_amplitudes(image, lender, strength)
    else:
        rotation = random_rotations(len(image), generator, image.device) if turn else None
        result = image + strength * (transfer_colours(image, lender, rotation) - image)
        restyled = restyled & has_colours(image) & has_colours(lender)
    return torch.where(restyled[:, None, None, None], result.clamp(0, 1), image)


def swap_amplitudes(
    image: Float[Tensor, "b 3 h w"], target: Float[Tensor, "b 3 h w"], strength: float
) -> Float[Tensor, "b 3 h w"]:
    """Take the amplitudes of the lowest frequencies from the target; phases stay (not clamped).

    FDA: Yang and Soatto, CVPR 2020. A block of (2 b + 1) x (2 b + 1) in the centre of the spectrum
    is swapped, b = floor(strength * min(h, w)); with b = 0, this is only the mean.

    Args:
        image: Images that keep their content.
        target: Images that lend their amplitudes, of the same size.
        strength: beta in the paper, 0 .. 0.5 (there 0.01 .. 0.09).
    """
    h, w = image.shape[-2:]
    b = int(strength * min(h, w))
    spectrum = torch.fft.rfft2(at_least_float32(image))
    lent = torch.fft.rfft2(at_least_float32(target)).abs()
    row = torch.fft.fftfreq(h, 1 / h, device=image.device).abs().round() <= b
    column = torch.fft.rfftfreq(w, 1 / w, device=image.device).round() <= b
    swapped = torch.polar(lent, spectrum.angle())
    spectrum = torch.where(row[:, None] & column, swapped, spectrum)
    result: Tensor = torch.fft.irfft2(spectrum, (h, w))
    return result


def transfer_colours(
    image: Float[Tensor, "b 3 h w"],
    target: Float[Tensor, "b 3 _ _"],
    rotation: Float[Tensor, "b 3 3"] | None = None,
) -> Float[Tensor, "b 3 h w"]:
    """Give each image the mean and the covariance of a target image's colours (not clamped).

    Colours are whitened, turned by `rotation`, and coloured: whitening and colouring of Li et al.
    (NeurIPS 2017), on pixels instead of features. Directions in which the image has less variance
    than `FLOOR` are not amplified further than that.

    Args:
        image: Images that keep their content.
        target: Images that lend their colours.
        rotation: Orthogonal matrices; None: the identity.
    """
    with torch.autocast(image.device.type, enabled=False):  # bfloat16 is too coarse for colours
        mean, covariance = colour_statistics(image)
        new_mean, new_covariance = colour_statistics(target)
        matrix = symmetric_power(new_covariance, 0.5, floor=0.0)
        if rotation is not None:
            matrix = _multiply(matrix, rotation.to(matrix.dtype))
        matrix = _multiply(matrix, symmetric_power(covariance, -0.5, floor=FLOOR))
        centred = image.to(matrix.dtype) - mean[:, :, None, None]
        return torch.einsum("bij,bjhw->bihw", matrix, centred) + new_mean[:, :, None, None]


def has_colours(image: Float[Tensor, "b 3 h w"]) -> Bool[Tensor, " b"]:
    """Whether an image has more than one colour; without, a new colour would hide its content."""
    return at_least_float32(image).var(dim=(2, 3)).sum(dim=1) > FLOOR


def colour_statistics(
    image: Float[Tensor, "b 3 h w"],
) -> tuple[Float[Tensor, "b 3"], Float[Tensor, "b 3 3"]]:
    """Return mean and covariance (divided by the number of pixels) of each image's colours."""
    colours = at_least_float32(image).flatten(2)
    mean = colours.mean(dim=2)
    centred = colours - mean[:, :, None]
    return mean, torch.einsum("bin,bjn->bij", centred, centred) / colours.shape[2]


def random_rotations(
    count: int, generator: Generator | None = None, device: torch.device | str = "cpu"
) -> Float[Tensor, "b 3 3"]:
    """Draw orthogonal 3x3 matrices, uniformly distributed, reflections included.

    Source: Mezzadri, How to Generate Random Matrices from the Classical Compact Groups, 2007: QR of
    normal numbers, with signs that make the diagonal of R positive.
    """
    drawn = generator.device if generator is not None else device
    normal = torch.randn(count, 3, 3, generator=generator, device=drawn).to(device)
    q, r = torch.linalg.qr(normal)
    rotations: Tensor = q * r.diagonal(dim1=1, dim2=2).sign()[:, None, :]
    return rotations


def symmetric_power(
    matrix: Float[Tensor, "b 3 3"], exponent: float, *, floor: float
) -> Float[Tensor, "b 3 3"]:
    """Raise positive semidefinite matrices to a power; their eigenvalues are at least `floor`."""
    values, vectors = eigen_decomposition(matrix)
    powers = values.clamp(min=floor) ** exponent
    return _multiply(vectors * powers[:, None, :], vectors.mT)


def eigen_decomposition(
    matrix: Float[Tensor, "b 3 3"],
) -> tuple[Float[Tensor, "b 3"], Float[Tensor, "b 3 3"]]:
    """Return unordered eigenvalues, and eigenvectors as columns, of symmetric matrices.

    Jacobi's method: each rotation makes one element off the diagonal 0. `torch.linalg.eigh` makes
    the host wait for the GPU, to check convergence; for 3x3 matrices five sweeps suffice.
    """
    vectors = torch.eye(3, dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
    for p, q in [(0, 1), (0, 2), (1, 2)] * 5:
        angle = torch.atan2(2 * matrix[:, p, q], matrix[:, p, p] - matrix[:, q, q]) / 2
        rotation = torch.eye(3, dtype=matrix.dtype, device=matrix.device).repeat(len(matrix), 1, 1)
        rotation[:, p, p] = rotation[:, q, q] = angle.cos()
        rotation[:, q, p], rotation[:, p, q] = angle.sin(), -angle.sin()
        matrix = _multiply(_multiply(rotation.mT, matrix), rotation)
        vectors = _multiply(vectors, rotation)
    return matrix.diagonal(dim1=1, dim2=2), vectors


def _multiply(a: Float[Tensor, "b 3 3"], b: Float[Tensor, "b 3 3"]) -> Float[Tensor, "b 3 3"]:
    """Multiply matrices in full float32, whatever the setting of TF32 is."""
    return (a[:, :, :, None] * b[:, None, :, :]).sum(dim=2)


def _checked(style: Style, strength: float | None, probability: float) -> float:
    """Return the strength, or its default; refuse numbers outside their ranges."""
    strength = _DEFAULTS[style] if strength is None else strength
    limit = 0.5 if style == "fda" else 1.0
    if not 0 <= strength <= limit:
        raise PipaError(
            f"is {strength}", "--method.style_strength", f"Give a number in 0 .. {limit}."
        )
    if not 0 <= probability <= 1:
        raise PipaError(
            f"is {probability}", "--method.style_probability", "Give a number in 0 .. 1."
        )
    return strength
