"""The two looks, `game` and `camera`, and those between them: the domain gap as one number.

A `Look` holds all parameters. `GAME.towards(CAMERA, gap)` is the look of target images: with a gap
of 0 they equal the source's bit for bit; with 1 a network learns nothing useful from the source.
"""

import math
from dataclasses import dataclass, fields

import cv2
import numpy as np
from jaxtyping import Float, UInt8, UInt32

from pipa.streets.camera import Camera
from pipa.streets.scene import Plan, Pose
from pipa.streets.shapes import FaceMap
from pipa.streets.surfaces import SKY, SURFACES, Texture
from pipa.streets.textures import Places, Rays, pattern

SUPERSAMPLING = 2
"""Faces are painted at this many times the image's resolution."""


@dataclass(frozen=True)
class Look:
    """The parameters by which a scene is photographed and developed."""

    palette: float
    """0: the game's colours; 1: the camera's."""
    texture: float
    """0: the game's faint patterns; 1: the camera's."""
    haze: float
    """Rate at which colour fades with distance, per metre (exponential)."""
    shadow: float
    """Share of light missing where the sun does not reach."""
    light: float
    """Standard deviation of the logarithm of the exposure, image by image."""
    warmth: float
    """Standard deviation of the logarithm of a factor on red, and of its inverse on blue."""
    contrast: float
    """Factor about the mean of the image."""
    blur: float
    """Sigma in pixels of an image of 128 rows."""
    vignette: float
    """Share of light missing in the corners."""
    noise: float
    """Standard deviation in steps of 255."""
    raised: float
    """Metres that the camera stands higher."""
    wider: float
    """Degrees added to the field of view."""
    roll: float
    """Standard deviation in degrees."""

    def towards(self, other: "Look", gap: float) -> "Look":
        """Interpolate linearly: this look at `gap` 0, the other one at 1."""
        ends = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Look(*(start * (1 - gap) + end * gap for start, end in ends))

    def camera(self, pose: Pose, size: tuple[int, int]) -> Camera:
        """Return the camera for a map of `size` rows and columns."""
        view = math.radians(pose.view + self.wider)
        return Camera(
            x=pose.x,
            height=pose.height + self.raised,
            focal=size[1] / 2 / math.tan(view / 2),
            yaw=pose.yaw,
            roll=math.radians(pose.roll * self.roll),
            horizon=pose.horizon * size[0],
            size=size,
            bend=pose.bend,
            z=pose.z,
        )


GAME = Look(
    palette=0.0, texture=0.0, haze=0.0003, shadow=0.0, light=0.03, warmth=0.0, contrast=1.0,
    blur=0.0, vignette=0.0, noise=4.0, raised=0.0, wider=0.0, roll=0.5,
)  # fmt: skip
CAMERA = Look(
    palette=1.0, texture=1.0, haze=0.013, shadow=0.6, light=0.34, warmth=0.14, contrast=0.78,
    blur=1.3, vignette=0.5, noise=14.0, raised=0.9, wider=12.0, roll=3.5,
)  # fmt: skip

# amplitude of each `Texture`: flat, asphalt, slabs, grass, left, right, leaves, grain, clouds
_GAME_STRENGTH = np.array([0, 0.04, 0.06, 0.08, 0.03, 0.03, 0.22, 0.03, 0.10], np.float32)
_CAMERA_STRENGTH = np.array([0, 0.38, 0.42, 0.50, 0.46, 0.46, 0.64, 0.30, 0.40], np.float32)


def develop(
    faces: FaceMap,
    camera: Camera,
    plan: Plan,
    look: Look,
    rng: np.random.Generator,
    *,
    places: Places | None = None,
    noise: np.random.Generator | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Turn a map of faces into a picture at half its resolution.

    Args:
        faces: The map.
        camera: The camera with which the map was painted; of a later frame: the first frame's.
        plan: The street's plan, for patterns and shadows.
        look: The look of the domain.
        rng: Draws exposure, offsets of patterns and noise, equally often for every look.
        places: Rows and columns of the first frame where the points of this one lay, so that
            patterns stay on their surfaces; None: this is the first frame.
        noise: Draws the noise of a later frame; None: `rng` does.
    """
    size = (camera.size[0] // SUPERSAMPLING, camera.size[1] // SUPERSAMPLING)
    warmth, exposure = rng.standard_normal(2).tolist()
    sun = 1 if rng.random() < 0.5 else -1
    table = _colours(faces, look)
    painted = np.take(table, faces.index).view(np.uint8).reshape(*faces.index.shape, 4)
    small = cv2.resize(painted, size[::-1], interpolation=cv2.INTER_AREA)
    image = np.asarray(small)[..., :3].astype(np.float32)
    gain = _texture_gain(faces, Rays(camera, size, places), plan, look, rng, sun)
    image *= gain[..., None]
    exposed = math.exp(look.light * exposure)
    white = np.exp(look.warmth * warmth * np.array([1.0, 0.0, -1.0])) * exposed * look.contrast
    image *= white.astype(np.float32)
    image += np.float32((1 - look.contrast) * 115 * exposed)
    if look.blur > 0:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), look.blur * size[0] / 128))
    if look.vignette > 0:
        image *= _vignette(size, look.vignette)[..., None]
    image += np.float32(look.noise) * (noise or rng).standard_normal(image.shape, np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def _colours(faces: FaceMap, look: Look) -> UInt32[np.ndarray, " f"]:
    """Return each face's colour, shaded and seen through haze, as four bytes in one number."""
    surfaces, tints = faces.surfaces, faces.tints
    choice = _FIRST[surfaces] + tints // (1 + surfaces) % _COUNT[surfaces]
    colours = _PALETTE[0][choice] * (1 - look.palette) + _PALETTE[1][choice] * look.palette
    own = 0.92 + 0.16 * (tints // 89 % 64) / 64
    colours = colours * (faces.shades * own)[:, None]
    clear = np.exp(-look.haze * faces.depths)[:, None]
    clear[_IS_SKY[surfaces]] = 1.0
    colours = colours * clear + np.array([196.0, 200.0, 206.0]) * (1 - clear)
    packed = np.zeros((len(colours), 4), dtype=np.uint8)
    packed[:, :3] = np.clip(colours, 0, 255)
    return packed.view(np.uint32)[:, 0]


def _texture_gain(
    faces: FaceMap,
    rays: Rays,
    plan: Plan,
    look: Look,
    rng: np.random.Generator,
    sun: int,
) -> Float[np.ndarray, "h w"]:
    """Return the brightness factor of each pixel: patterns, and the shadow of one side."""
    kinds = _TEXTURE[faces.surfaces][faces.index[::SUPERSAMPLING, ::SUPERSAMPLING]]
    fronts = -plan.front(-1), plan.front(1)
    strength = (1 - look.texture) * _GAME_STRENGTH + look.texture * _CAMERA_STRENGTH
    gain = 1 + strength[kinds] * pattern(kinds, rays, fronts, rng)
    reach = rng.uniform(-1.0, 1.2, 64) * plan.edge(sun) + plan.front(sun) - plan.edge(sun)
    on_ground = np.flatnonzero((kinds >= Texture.ASPHALT) & (kinds <= Texture.GRASS))
    x, z, _ = rays.ground(on_ground)
    limit = plan.front(sun) - reach.astype(np.float32)[np.clip(z / 5, 0, 63).astype(np.int32)]
    gain.ravel()[on_ground[sun * x > limit]] *= 1 - look.shadow
    gain[kinds == (Texture.RIGHT if sun > 0 else Texture.LEFT)] *= 1 - look.shadow
    return np.asarray(np.maximum(gain, 0.05), dtype=np.float32)


def _vignette(size: tuple[int, int], depth: float) -> Float[np.ndarray, "h w"]:
    y, x = np.linspace(-1, 1, size[0])[:, None], np.linspace(-1, 1, size[1])[None]
    return np.asarray(1 - depth * ((x * x + y * y) / 2) ** 1.5, dtype=np.float32)


_COUNT = np.array([len(s.game) for s in SURFACES])
_FIRST = np.cumsum(_COUNT) - _COUNT
_PALETTE = np.array(
    [[c for s in SURFACES for c in s.game], [c for s in SURFACES for c in s.camera]], dtype=float
)
_TEXTURE = np.array([s.texture for s in SURFACES])
_IS_SKY = np.array([s.label == SKY for s in SURFACES])
