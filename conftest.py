"""The image set that the examples in docstrings read: `sets/photos` in the working folder."""

from pathlib import Path

import numpy as np
import pytest

READERS = ("cnnlib.image_set.contract.open_image_set", "cnnlib.feed.dataset.make_dataset")


@pytest.fixture(autouse=True)
def working_folder_with_photos(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give these doctests a working folder with a set of 8 train images of cats and dogs."""
    if request.node.name not in READERS:
        return
    from tests.unit.image_sets import write_image_set

    folder: Path = request.getfixturevalue("tmp_path")
    images = np.random.default_rng(0).integers(0, 256, (10, 28, 28, 1), np.uint8)
    splits = ["train"] * 8 + ["val"] * 2
    write_image_set(folder / "sets" / "photos", images, [0, 1] * 5, splits, classes=("cat", "dog"))
    monkeypatch.chdir(folder)
