"""PiPa's two losses in a training loop of your own, around a network of your own.

    python examples/own_loop.py

The network, the optimiser and the data are yours; of pipa there are `Wrapped`, which says where the
feature maps are, and the terms, which own their projection heads. The data here are drawn: each
class has a colour, and the target's colours are darker.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pipa

CLASSES, STEPS, SIDE = 4, 30, 64


class MyNetwork(nn.Module):
    """Two convolutions; it returns logits at stride 4, and the maps they are made from."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 4, stride=2, padding=1)
        self.second = nn.Conv2d(16, 32, 4, stride=2, padding=1)
        self.decode = nn.Conv2d(32, CLASSES, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = self.second(self.first(image - 0.5).relu()).relu()
        return self.decode(features), [features]


def draw(count: int, side: tuple[int, int], light: float, rng: torch.Generator) -> pipa.Labelled:
    """Images (b, 3, h, w) in [0, 1] and labels (b, h, w): blocks of 16 pixels."""
    cells = torch.randint(CLASSES, (count, side[0] // 16, side[1] // 16), generator=rng)
    label = cells.repeat_interleave(16, 1).repeat_interleave(16, 2)
    colour = torch.tensor([[0.9, 0.2, 0.2], [0.2, 0.9, 0.2], [0.2, 0.2, 0.9], [0.8, 0.8, 0.2]])
    image = colour[label].permute(0, 3, 1, 2) * light
    noise = 0.1 * torch.rand(image.shape, generator=rng)
    return pipa.Labelled((image + noise).clamp(0, 1), label)


def overlapping(photos: Tensor) -> pipa.CropPair:
    """Cut two crops of SIDE from each photo: the second lies 16 rows and 24 columns further.

    The shift is a multiple of the network's stride, so that cells of both crops coincide.
    """
    valid = torch.ones(len(photos), SIDE, SIDE, dtype=torch.bool)
    return pipa.CropPair(
        first=pipa.Unlabelled(photos[:, :, :SIDE, :SIDE], valid),
        second=pipa.Unlabelled(photos[:, :, 16 : SIDE + 16, 24 : SIDE + 24], valid),
        shift=torch.tensor([[16, 24]]).expand(len(photos), 2),
        flipped=torch.zeros(len(photos), 2, dtype=torch.bool),
    )


def main() -> list[dict[str, float]]:
    """Train; return the losses of each step."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    student = pipa.Wrapped(MyNetwork(), num_classes=CLASSES, channels=[32])
    pixel = pipa.PixelTerm(weight=0.1, width=32, dim=16, anchors=256)
    patch = pipa.PatchTerm(weight=0.1, width=32, dim=16, queries=100, memory=300, threshold=0.5)
    pixel.prepare(student)  # builds the projection heads, which the optimiser needs
    patch.prepare(student)
    learning = [*student.parameters(), *pixel.parameters(), *patch.parameters()]
    optimiser = torch.optim.AdamW(learning, lr=5e-3)

    history = []
    for _ in range(STEPS):
        source = draw(4, (SIDE, SIDE), 1.0, rng)
        photos = draw(4, (96, 96), 0.7, rng).image  # their labels are not used
        prediction = student.analyse(source.image)  # one pass: logits and features
        logits = F.interpolate(prediction.outputs[0].logits, (SIDE, SIDE), mode="bilinear")
        batch = pipa.Batch(source, pair=overlapping(photos))
        losses = {
            "source": F.cross_entropy(logits, source.label),
            "pixel": pixel.weight * pixel(prediction, source, rng),
            "patch": patch.weight * patch(pipa.Given(student, batch, generator=rng)),
        }
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
        history.append({name: float(loss.detach()) for name, loss in losses.items()})
    return history


if __name__ == "__main__":
    for step, losses in enumerate(main()):
        print(step, *(f"{name} {loss:.3f}" for name, loss in losses.items()))
