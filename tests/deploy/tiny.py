"""The smallest honest network: the class of a pixel is its strongest colour channel."""

from pipa.classes import LabelSpace
from pipa.models.segmenter import Segmenter

COLOURS = ((200, 0, 0), (0, 200, 0), (0, 0, 200))


class Strongest(Segmenter):
    def __init__(self, legend=True):
        super().__init__(3, window=16, stride=12)
        self.labels = LabelSpace(("red", "green", "blue"), COLOURS) if legend else None

    def analyse(self, image):
        raise NotImplementedError("not trained")

    def context(self, image):
        raise NotImplementedError("not trained")

    def forward(self, image):
        return 3 * self.normalise(image) * self.std
