"""Augmentation: every image is a shifted or mirrored copy of its original, found by trying all."""

import numpy as np
import pytest

from gluon_bn import augment
from gluon_bn.data import Batches

IMAGES = np.random.RandomState(0).randint(1, 256, (60, 28, 28)).astype(np.uint8)
LABELS = np.arange(60) % 10


def shifted(image, down, right):
    """By a loop over pixels, which knows nothing of windows and strides."""
    result = np.zeros_like(image)
    for i in range(28):
        for j in range(28):
            if 0 <= i - down < 28 and 0 <= j - right < 28:
                result[i, j] = image[i - down, j - right]
    return result


def test_crop_shifts_by_up_to_one_pixel_and_fills_with_black():
    found = set()
    result = augment.crop(IMAGES, np.random.RandomState(1))
    assert result.shape == IMAGES.shape and result.dtype == np.uint8
    for original, image in zip(IMAGES, result):
        places = [
            (down, right)
            for down in range(-3, 4)
            for right in range(-3, 4)
            if np.array_equal(image, shifted(original, down, right))
        ]
        assert len(places) == 1
        found.add(places[0])
    assert {d for d, _ in found} == {r for _, r in found} == {-1, 0, 1}


def test_flip_mirrors_about_half():
    result = augment.flip(IMAGES, np.random.RandomState(1))
    mirrored = [np.array_equal(image, original[:, ::-1]) for original, image in zip(IMAGES, result)]
    same = [np.array_equal(image, original) for original, image in zip(IMAGES, result)]
    assert [a or b for a, b in zip(mirrored, same)] == [True] * 60
    assert 15 < sum(mirrored) < 45


def test_erase_covers_a_rectangle_of_half_of_the_images_with_noise():
    images = np.repeat(IMAGES[:1], 400, axis=0)
    result = augment.erase(images, np.random.RandomState(1))
    assert result.shape == images.shape and result.dtype == np.uint8
    shares, corners = [], set()
    for image in result:
        rows, columns = np.nonzero(image != images[0])
        if len(rows):
            top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
            size = (bottom - top + 1) * (right - left + 1)
            assert len(rows) >= 0.75 * size  # noise is what was there before in 1 of 256
            shares.append(size / 28**2)
            corners.update(
                (
                    ("top", top == 0),
                    ("bottom", bottom == 27),
                    ("left", left == 0),
                    ("right", right == 27),
                )
            )
    assert 150 < len(shares) < 250
    assert 0.012 < min(shares) < 0.05 and 0.28 < max(shares) < 0.36
    assert len(corners) == 8  # it touches each side, sometimes, and not always


def test_names_joined_are_one_after_the_other():
    both = augment.find("flip-erase")(IMAGES, np.random.RandomState(3))
    random_state = np.random.RandomState(3)
    np.testing.assert_array_equal(
        both, augment.erase(augment.flip(IMAGES, random_state), random_state)
    )


def test_images_keep_their_labels_and_the_originals_are_untouched():
    before = IMAGES.copy()
    batches = Batches(IMAGES, LABELS, 16, shuffle=True, augment="crop-flip")
    order = batches.order(0)
    y = np.concatenate([y.asnumpy() for _, y in batches])
    np.testing.assert_array_equal(y, LABELS[order])
    np.testing.assert_array_equal(IMAGES, before)


def test_random_numbers_depend_on_seed_pass_and_batch_alone():
    def images(seed=0, epoch=0, skip=0):
        batches = Batches(IMAGES, LABELS, 16, seed=seed, augment="crop-flip")
        batches.set_epoch(epoch)
        return np.concatenate([X.asnumpy() for X, _ in list(batches)[skip:]])

    first = images()
    np.random.seed(7)
    np.testing.assert_array_equal(images(), first)
    np.testing.assert_array_equal(images(skip=2), first[32:])
    assert not np.array_equal(images(epoch=1), first)
    assert not np.array_equal(images(seed=1), first)


def test_a_function_of_your_own():
    batches = Batches(IMAGES, LABELS, 16, augment=lambda images, _: 255 - images)
    X, _ = next(iter(batches))
    np.testing.assert_allclose(X.asnumpy()[:, 0], (255 - IMAGES[:16]) / 255.0, rtol=1e-6)


@pytest.mark.parametrize("bad", ["rotate", 3, ["crop"]])
def test_unknown_names(bad):
    with pytest.raises(ValueError, match="crop-flip"):
        Batches(IMAGES, LABELS, 16, augment=bad)
