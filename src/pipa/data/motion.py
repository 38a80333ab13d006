"""The true motion between two frames of a video that comes with optical flow."""

import numpy as np
from jaxtyping import Float

from pipa.data.dataset import Segmentation
from pipa.errors import PipaError

Flow = Float[np.ndarray, "h w 2"]


def motion(images: Segmentation, start: int, end: int, size: tuple[int, int]) -> Flow:
    """Return rows and columns by which the point at each pixel moves from one frame to another.

    Over several frames the flow of each is added, at the nearest pixel that the point has reached.

    Args:
        images: The video, with flow.
        start: A frame.
        end: Another frame of the same folder, or the same.
        size: Rows and columns of both.

    Returns:
        Pixels of the image as it is stored; nan where a point is lost from view.

    Raises:
        PipaError: A file of flow is missing or faulty, or of another size.
    """
    total = np.zeros((*size, 2), np.float32)
    grid = np.indices(size).transpose(1, 2, 0)
    forward = images.comes_after(end, start)
    while start != end:
        flow = images.flow(start, forward=forward)
        if flow.shape[:2] != size:
            problem = f"the optical flow has {flow.shape[0]}x{flow.shape[1]} pixels"
            remedy = f"Write it at the size of its image, {size[0]}x{size[1]}."
            raise PipaError(problem, images.pairs[start].image, remedy)
        place = np.rint(np.nan_to_num(grid + total)).astype(np.intp)  # lost points stay nan
        place = np.clip(place, 0, (size[0] - 1, size[1] - 1))
        total = total + flow[place[..., 0], place[..., 1]]
        start = images.neighbour(start, 1 if forward else -1)
    return total


def refuse_without_flow(images: Segmentation) -> None:
    """Refuse a target that has no optical flow.

    Raises:
        PipaError: An image of the target has none.
    """
    for pair in images.pairs:
        if pair.flow is None:
            raise PipaError(
                "has no optical flow; pair_motion is flow",
                pair.image,
                "Put it into flow_next/ and flow_previous/ beside images/, or leave"
                " --data.pair_motion out.",
            )
