"""Corruptions change pixels mildly, and the same image always in the same way."""

from typing import get_args

import numpy as np
import pytest

from cnnlib.config import Corruption
from cnnlib.evaluation.corruptions import CORRUPTIONS
from tests.unit.pictures import noise

IDS = [f"{number:064x}" for number in (1 << 240, 5 << 200, 77 << 210)]


@pytest.fixture(params=[(28, 28, 1), (70, 50, 3)], ids=["grey", "colour"])
def images(request: pytest.FixtureRequest) -> np.ndarray:
    smooth = np.linspace(30, 200, np.prod(request.param)).reshape(request.param)
    images = np.stack([smooth, smooth[::-1], smooth / 2]).astype(np.uint8)
    images[:, 5:15, 8:12] = 220
    return images


def test_settings_name_them_all():
    assert set(get_args(Corruption)) == set(CORRUPTIONS)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_damage_is_mild_and_the_same_in_any_batch(name, images):
    before = images.copy()
    damaged = CORRUPTIONS[name](images, IDS)
    assert (images == before).all()
    assert (damaged.shape, damaged.dtype) == (images.shape, np.uint8)
    assert (damaged != images).any(axis=(1, 2, 3)).all()
    assert np.abs(damaged.astype(int) - images).mean() < 30
    order = [2, 0]
    again = CORRUPTIONS[name](images[order], [IDS[number] for number in order])
    assert (again == damaged[order]).all()


def test_noise_has_its_deviation_and_differs_per_image():
    grey = np.full((2, 100, 100, 1), 128, np.uint8)
    added = CORRUPTIONS["gaussian_noise"](grey, IDS[:2]).astype(float) - 128
    assert added.std() == pytest.approx(0.04 * 255, rel=0.05)
    assert abs(np.corrcoef(added[0].ravel(), added[1].ravel())[0, 1]) < 0.05


def test_brightness_adds_a_tenth_and_stops_at_white():
    image = np.array([[[[0], [100], [250]]]], np.uint8)
    assert CORRUPTIONS["brightness"](image, IDS[:1]).ravel().tolist() == [26, 126, 255]


def test_contrast_draws_towards_the_mean_of_each_image():
    images = np.array([[[[0], [200]]], [[[50], [50]]]], np.uint8)
    assert CORRUPTIONS["contrast"](images, IDS[:2]).reshape(2, 2).tolist() == [[25, 175], [50, 50]]


def test_shift_moves_down_and_right_and_repeats_the_edge():
    image = noise(28, 28)[None]
    shifted = CORRUPTIONS["shift"](image, IDS[:1])
    assert (shifted[:, 2:, 2:] == image[:, :-2, :-2]).all()
    assert (shifted[:, 0, 2:] == image[:, 0, :-2]).all()


def test_blur_keeps_the_light_and_spreads_it():
    image = np.zeros((1, 21, 21, 1), np.uint8)
    image[0, 10, 10] = 255
    blurred = CORRUPTIONS["gaussian_blur"](image, IDS[:1])[0, :, :, 0].astype(int)
    assert blurred.sum() == pytest.approx(255, abs=8)
    assert 0 < blurred[10, 11] < blurred[10, 10] < 255
