"""More pictures from the same pictures: shifted and mirrored, a whole batch at a time.

    train_iter, test_iter = data.batches(256, augment='crop-flip')

A function here takes `images`, uint8 (N, H, W), and a `numpy.random.RandomState`, and returns new
images of the same shape and type. Only training images are augmented, each pass anew.
"""

import numpy as np

PADDING = 2  # pixels a garment moves at most, up, down, left or right


def crop(images, random_state, padding=PADDING):
    """Put each image into a black frame `padding` pixels wide and cut out a place at random."""
    n, height, width = images.shape
    framed = np.pad(images, ((0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(framed, (height, width), axis=(1, 2))
    top, left = random_state.randint(0, 2 * padding + 1, (2, n))
    return windows[np.arange(n), top, left]


def flip(images, random_state):
    """Mirror half of the images, left to right."""
    mirrored = random_state.randint(0, 2, len(images)) == 1
    return np.where(mirrored[:, np.newaxis, np.newaxis], images[:, :, ::-1], images)


def crop_and_flip(images, random_state):
    """Both."""
    return flip(crop(images, random_state), random_state)


AUGMENTATIONS = {"none": None, "crop": crop, "flip": flip, "crop-flip": crop_and_flip}


def find(augment):
    """The function that `augment` names; None for None and 'none'; a function is itself."""
    if augment is None or callable(augment):
        return augment
    try:
        return AUGMENTATIONS[augment]
    except (KeyError, TypeError):
        raise ValueError(f"augment must be one of {', '.join(AUGMENTATIONS)}, or a function of "
                         f"(images, random_state), not {augment!r}") from None
