"""Crops and flips equal plain loops over the images with the same random numbers."""
import numpy as np
import pytest

from minires import device
from minires.datasets import crop_and_flip, normalize, random_crop, random_flip, subtract_pixel_mean, to_float


def images(n=6, c=3, h=5, w=7):
    return np.arange(1, n * c * h * w + 1, dtype=np.float32).reshape(n, c, h, w)


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_crop_is_a_window_of_the_padded_image(padding):
    x = images()
    got = random_crop(x, padding, rng=np.random.default_rng(5))
    top, left = np.random.default_rng(5).integers(0, 2 * padding + 1, (2, len(x)))
    for image, crop, i, j in zip(x, got, top, left, strict=True):
        padded = np.zeros((3, 5 + 2 * padding, 7 + 2 * padding), np.float32)
        padded[:, padding:padding + 5, padding:padding + 7] = image
        assert np.array_equal(crop, padded[:, i:i + 5, j:j + 7])
    assert got.dtype == np.float32 and got.shape == x.shape


def test_every_window_is_as_likely():
    x = np.pad(np.ones((20_000, 1, 1, 1), np.float32), ((0, 0), (0, 0), (1, 1), (1, 1)))  # one bright pixel
    total = random_crop(x, 1, rng=np.random.default_rng(0)).sum((0, 1))
    assert np.abs(total / len(x) - 1 / 9).max() < 5 * np.sqrt(1 / 9 * 8 / 9 / len(x))


def test_flip_mirrors_columns_of_half_of_the_images():
    x = images(n=1000)
    got = random_flip(x, rng=np.random.default_rng(0))
    kept, mirrored = (got == x).all((1, 2, 3)), (got == x[..., ::-1]).all((1, 2, 3))
    assert (kept ^ mirrored).all()
    assert 450 < mirrored.sum() < 550


def test_same_seed_same_images_and_the_input_is_left_alone():
    x = images()
    x.setflags(write=False)
    a, b = (crop_and_flip(x, rng=np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(a, b) and not np.shares_memory(a, x)


@pytest.mark.parametrize("call, said", [
    (lambda r: random_crop(np.zeros((2, 3, 4)), rng=r), r"random_crop: expected images \(N, C, H, W\).*\(2, 3, 4\)"),
    (lambda r: random_crop(images(), -1, rng=r), "padding >= 0, got -1"),
    (lambda r: random_flip(np.zeros((0, 3, 4, 4)), rng=r), "random_flip: expected images"),
])
def test_bad_input(call, said):
    with pytest.raises(ValueError, match=said):
        call(np.random.default_rng(0))


@pytest.mark.gpu
@pytest.mark.skipif(device.use() == "cpu", reason=device.reason)
@pytest.mark.parametrize("change", [
    lambda x: crop_and_flip(x, rng=np.random.default_rng(3)),
    lambda x: normalize(x, [1, 2, 3], [4, 5, 6]),
    lambda x: subtract_pixel_mean(x)[0],
    lambda x: to_float(x[..., :4]),
], ids=["crop_and_flip", "normalize", "subtract_pixel_mean", "to_float"])
def test_the_same_on_the_gpu(change):
    x = images(n=5, c=3, h=6, w=7) % 255
    got = change(device.to(x, "gpu"))
    assert device.on_gpu(got) and got.dtype == np.float32
    np.testing.assert_allclose(device.to(got, "cpu"), change(x), rtol=1e-6, atol=1e-6)
