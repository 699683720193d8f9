"""The replayed ids of a step belong to the images that the feed gave in that step."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

from cnnlib.feed import make_dataset  # noqa: E402
from cnnlib.feed.replay import image_ids_of_step  # noqa: E402
from cnnlib.feed.sharding import Shard  # noqa: E402
from tests.unit.trainings import striped_set  # noqa: E402


@pytest.mark.parametrize("shard", [Shard(0, 1), Shard(0, 2), Shard(1, 2)], ids=str)
@pytest.mark.parametrize("shuffle_mb", [0.01, 128.0])
def test_ids_are_those_of_the_images_that_were_fed(tmp_path, shard, shuffle_mb):
    image_set = striped_set(tmp_path)
    tables = [pq.read_table(image_set.folder.path(file.path)) for file in image_set.split("train").files]
    # All images differ, so each has its own id.
    image_ids = {
        row["image"]: row["image_id"] for table in tables for row in table.select(["image", "image_id"]).to_pylist()
    }
    assert len(image_ids) == 240
    order = {"worker_batch_size": 50, "seed": 7, "shuffle_mb": shuffle_mb, "shard": shard}
    with make_dataset(image_set, "train", **order) as batches:
        for epoch in range(2):
            for step, (images, _) in enumerate(batches):
                fed = [image_ids[np.asarray(image).tobytes()] for image in images]
                replayed = image_ids_of_step(image_set, "train", epoch=epoch, step=step, timeout_s=60, **order)
                assert replayed == fed
            assert step + 1 == (5 if shard.workers == 1 else 3)
