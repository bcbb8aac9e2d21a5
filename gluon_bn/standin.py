"""The stand-in: ten classes of drawn garments, for a machine that cannot reach Fashion-MNIST.

It has Fashion-MNIST's classes, shapes and sizes, so every lesson runs on it, but it is *not*
Fashion-MNIST, and accuracies on it compare with nothing that others publish. `gluon_bn` calls it
`stand-in` wherever it is named.

How a garment is drawn: every pixel has coordinates (u, v), u to the right and v downwards, about
-1 to 1. A shape is a function of (u, v) that is negative inside and grows with the distance from
the outline (a signed distance), so `minimum` joins two shapes and `maximum(a, -b)` cuts b out of a.
Jitter is a change of coordinates; cloth is a pattern multiplied on. Every function below draws
many garments at once: `u`, `v` and all shapes are float32 arrays (n, 28, 28), the random
properties of the garments (n, 1, 1).
"""

import numpy as np

SIDE = 28  # pixels, as in Fashion-MNIST
PIXEL = 2 / SIDE  # the width of a pixel in (u, v)
CHUNK = 500  # garments drawn together: enough for NumPy, few enough for the processor's cache


def generate(train=60_000, test=10_000, seed=0):
    """Draw the stand-in, which takes a few seconds for all 70,000 garments.

    Returns `(train_images, train_labels, test_images, test_labels)`: uint8 images (n, 28, 28) and
    int32 labels (n,), as many of each of the ten classes as n allows, in random order. The same
    arguments draw the same garments.
    """
    return (*_draw_set(train, (seed, 0)), *_draw_set(test, (seed, 1)))


def _draw_set(n, seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n, dtype=np.int32) % len(GARMENTS))
    images = np.empty((n, SIDE, SIDE), np.uint8)
    for label, garment in enumerate(GARMENTS):
        where = np.flatnonzero(labels == label)
        for start in range(0, len(where), CHUNK):
            chunk = where[start : start + CHUNK]
            images[chunk] = _photograph(Tailor(rng, len(chunk)), garment)
    return images, labels


def _photograph(tailor, garment):
    """Draw one chunk of a garment and take its picture: light, noise, 256 levels of grey."""
    outline, details = garment(tailor)
    inside = np.clip(0.5 - outline / PIXEL, 0, 1)  # a soft edge, one pixel wide
    picture = inside * tailor.cloth() * details * tailor.between(0.35, 1.0)
    noise = tailor.rng.standard_normal(picture.shape, dtype=np.float32)
    picture += noise * tailor.between(0.02, 0.14)
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


class Tailor:
    """The coordinates of `n` garments, each shifted, scaled and sheared a little, and the dice."""

    def __init__(self, rng, n):
        self.rng, self.n = rng, n
        y, x = np.meshgrid(
            *[np.linspace(-1, 1, SIDE, dtype=np.float32) * (1 - PIXEL / 2)] * 2, indexing="ij"
        )
        self.v = (y - self.near(0, 0.06)) / self.between(0.85, 1.05)
        self.u = (x - self.near(0, 0.06) + self.near(0, 0.06) * y) / self.between(0.82, 1.08)
        self.a = np.abs(self.u)  # most garments are symmetric: draw the right half, get both

    def between(self, low, high):
        """One uniform number a garment, float32 (n, 1, 1)."""
        return self.rng.uniform(low, high, (self.n, 1, 1)).astype(np.float32)

    def near(self, mean, deviation):
        """One normal number a garment, float32 (n, 1, 1), never more than 2 deviations away."""
        z = self.rng.standard_normal((self.n, 1, 1)).clip(-2, 2)
        return (mean + deviation * z).astype(np.float32)

    def some(self, share):
        """True for about this share of the garments, (n, 1, 1)."""
        return self.rng.random((self.n, 1, 1)) < share

    def cloth(self):
        """How light each point of the cloth is, up to 1: stripes, checks, folds, or plain."""
        stripes = np.sin(self.v * self.between(8, 24) + self.between(0, 6))
        pleats = np.sin(self.u * self.between(8, 24) + self.between(0, 6))
        depth = self.between(0.05, 0.6)
        light = 1 - depth * self.some(0.35) * (0.5 + 0.5 * stripes)
        light *= 1 - depth * self.some(0.25) * (0.5 + 0.5 * pleats)
        folds = np.sin(self.u * self.near(0, 3) + self.v * self.near(0, 3) + self.between(0, 6))
        return light * (1 - self.between(0, 0.35) * (0.5 + 0.5 * folds))


# Shapes: negative inside, positive outside, about the distance from the outline. -----------------


def join(*shapes):
    return np.minimum.reduce(np.broadcast_arrays(*shapes))


def cut(shape, hole):
    return np.maximum(shape, -hole)


def box(u, v, left, right, top, bottom):
    return np.maximum(np.maximum(left - u, u - right), np.maximum(top - v, v - bottom))


def ellipse(u, v, cx, cy, rx, ry):
    return (np.hypot((u - cx) / rx, (v - cy) / ry) - 1) * np.minimum(rx, ry)


def stroke(u, v, x0, y0, x1, y1, radius):
    """A straight line from (x0, y0) to (x1, y1) with round ends: a sleeve, a strap."""
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((u - x0) * dx + (v - y0) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(u - x0 - along * dx, v - y0 - along * dy) - radius


def line(shape, width=PIXEL / 2, darker=0.5):
    """A dark (or, with darker < 0, light) line where `shape` is zero: a factor for the cloth."""
    return 1 - darker * np.clip(1 - np.abs(shape) / width / 2, 0, 1)


# Garments: each returns its outline and a factor for the details drawn on it. ---------------------


def _top(t, width, length, sleeve, hang, thickness, neck):
    """Anything worn on the upper body. `hang`: 0 is an arm stretched out, 1 an arm hanging."""
    body = box(t.a, t.v, -1, width + 0.06 * t.v, -0.78, length)
    shoulder = width - thickness + 0.06, -0.74 + thickness
    arm = stroke(
        t.a,
        t.v,
        *shoulder,
        shoulder[0] + sleeve * (1 - 0.75 * hang),
        shoulder[1] + sleeve * (0.35 + 0.65 * hang),
        thickness,
    )
    return cut(join(body, arm), ellipse(t.a, t.v, 0, -0.86, 0.22, neck))


def t_shirt(t):
    outline = _top(
        t,
        t.near(0.46, 0.05),
        t.near(0.74, 0.08),
        t.near(0.40, 0.09),
        t.near(0.35, 0.15),
        t.near(0.17, 0.02),
        t.near(0.18, 0.06),
    )
    print_on_chest = t.some(0.4) & (box(t.u, t.v, -0.22, 0.22, -0.3, t.between(-0.1, 0.3)) < 0)
    return outline, 1 - print_on_chest * t.between(-0.4, 0.6)


def trouser(t):
    hip, foot = t.near(0.34, 0.04), t.near(0.30, 0.07)
    outer = hip + (foot - hip) * (t.v + 0.9) / 1.8
    legs = box(t.a, t.v, -1, outer, -0.9, 0.9)
    crotch = t.near(-0.30, 0.08)
    gap = np.maximum(t.a - t.between(0.02, 0.12) * (t.v - crotch + 0.2), crotch - t.v)
    return cut(legs, gap), line(t.v + 0.76, darker=t.between(0, 0.5))


def pullover(t):
    outline = _top(
        t,
        t.near(0.45, 0.05),
        t.near(0.70, 0.08),
        t.near(1.15, 0.15),
        t.near(0.90, 0.10),
        t.near(0.15, 0.02),
        t.near(0.12, 0.05),
    )
    return outline, line(t.v - 0.58, darker=t.between(0, 0.5))  # the ribbed hem


def dress(t):
    waist, top = t.near(-0.15, 0.10), t.near(0.28, 0.04)
    narrow = top - t.between(0.02, 0.10)
    half = np.where(
        t.v < waist,
        narrow + (top - narrow) * (waist - t.v) / 0.7,
        narrow + t.between(0.10, 0.45) * (t.v - waist),
    )
    skirt = box(t.a, t.v, -1, half, -0.9, t.near(0.88, 0.06))
    reach = t.between(0.02, 0.45) * t.some(0.5) + 0.02
    arm = stroke(t.a, t.v, top - 0.08, -0.76, top - 0.04 + 0.5 * reach, -0.74 + reach, 0.09)
    outline = cut(join(skirt, arm), ellipse(t.a, t.v, 0, -0.95, 0.16, t.near(0.22, 0.08)))
    return outline, line(t.v - waist, darker=t.between(0, 0.5))


def coat(t):
    outline = _top(
        t,
        t.near(0.46, 0.05),
        t.near(0.82, 0.07),
        t.near(1.20, 0.15),
        t.near(0.95, 0.08),
        t.near(0.15, 0.02),
        t.near(0.14, 0.06),
    )
    opening = line(t.u - t.near(0, 0.02), darker=t.between(0.1, 0.7))
    lapel = line(t.a - 0.30 * (-0.2 - t.v), darker=t.between(0, 0.6))
    return outline, np.where(t.v < -0.2, lapel, opening)


def sandal(t):
    heel = t.between(0.0, 0.55)  # from flat to high
    ground = 0.42 - heel * np.clip((t.u + 0.2) / 1.1, 0, 1) ** 1.5 + 0.2 * heel
    sole = np.maximum(np.abs(t.v - ground) - t.near(0.08, 0.02), t.a - 0.9)
    stilt = box(t.u, t.v, 0.78, 0.9, 0, 0.42 + 0.2 * heel)
    straps = join(
        stroke(t.u, t.v, -0.70, 0.40, t.between(-0.45, -0.2), t.between(0.0, 0.2), 0.06),
        stroke(t.u, t.v, -0.15, 0.40, t.between(-0.45, -0.2), t.between(0.0, 0.2), 0.06),
        stroke(t.u, t.v, t.between(0.0, 0.3), 0.3, 0.65, t.between(-0.5, -0.1), 0.06),
        stroke(t.u, t.v, 0.85, 0.3 - 0.6 * heel, 0.65, t.between(-0.5, -0.1), 0.06),
    )
    return join(sole, stilt, straps), np.float32(1)


def shirt(t):
    short = t.some(0.35)
    outline = _top(
        t,
        t.near(0.45, 0.05),
        t.near(0.77, 0.08),
        np.where(short, t.near(0.45, 0.10), t.near(1.15, 0.15)),
        np.where(short, t.near(0.40, 0.15), t.near(0.90, 0.10)),
        t.near(0.15, 0.02),
        t.near(0.15, 0.06),
    )
    buttons = line(t.u, darker=t.between(0, 0.5) * (np.sin(t.v * 20) > 0))
    collar = line(t.a + 0.8 * t.v + 0.48, darker=t.between(0, 0.6))
    return outline, buttons * np.where(t.a < 0.3, collar, 1)


def _shoe(t, ankle, opening):
    """Seen from the left, toes to the left. `ankle`: the height of the shaft's rim (v)."""
    instep = ankle + (0.22 - ankle) / (1 + np.exp(np.clip((t.u - opening) * 9, -30, 30)))
    toe = 0.16 * np.clip((-0.45 - t.u) / 0.45, 0, 1) ** 2
    upper = box(t.u, t.v, -0.88, t.near(0.82, 0.04), instep + toe, 0.42)
    sole = box(t.u, t.v, -0.92, 0.86, 0.38, t.near(0.52, 0.03))
    return join(upper, sole), line(t.v - 0.4, darker=t.between(-0.3, 0.7))


def sneaker(t):
    outline, seam = _shoe(t, t.near(-0.10, 0.10), t.near(-0.10, 0.15))
    laces = np.sin((t.u + 0.6 * t.v) * 22) > 0.3
    laced = t.some(0.6) & laces & (np.abs(t.u + 0.2) < 0.25) & (t.v < 0.25)
    return outline, seam * (1 - laced * t.between(0.1, 0.6))


def bag(t):
    top, half = t.near(-0.15, 0.12), t.near(0.74, 0.10)
    body = box(t.a, t.v, -1, half - t.between(-0.1, 0.2) * (0.7 - t.v), top, t.near(0.70, 0.08))
    ring = ellipse(t.a, t.v, 0, top, t.between(0.25, 0.60), t.between(0.25, 0.70))
    handle = np.maximum(np.abs(ring) - t.near(0.06, 0.015), t.v - top)
    flap = line(t.v - top - t.between(0.15, 0.4), darker=t.between(-0.3, 0.7))
    return join(body, handle), flap


def ankle_boot(t):
    outline, seam = _shoe(t, t.near(-0.55, 0.16), t.near(0.05, 0.10))
    heel = box(t.u, t.v, t.between(0.3, 0.6), 0.86, 0.4, 0.5 + t.between(0, 0.25))
    return join(outline, heel), seam


GARMENTS = (t_shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle_boot)
