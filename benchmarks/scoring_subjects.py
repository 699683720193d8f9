"""The images that benchmarks/scoring.py scores: digits in an image set, or photographs as files."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.idx import idx_bytes
from benchmarks.photographs import large, photographs_in, write_photographs
from cnnlib.image_set.contract import IMAGE, IMAGE_ID, open_image_set, raw_pixels
from cnnlib.sealed.frozen.images import ImageSpec, decode_image

SPLIT = "test"
SEED = 0
PHOTO_SIDE = 96
# Size of the image set for which the model of the photographs is registered.
PHOTOS_IN_SET = 300
NAMES_PER_FILE = 10


@dataclass(frozen=True)
class Digits:
    """MNIST's digits, repeated with different noise, in an image set that stores raw pixels. The model is LeNet."""

    folder: str
    model = "lenet"
    name = "images of 28 x 28"
    spec = ImageSpec(28, 28, 1)

    def prepare(self, images: int) -> dict[str, Any]:
        """Write the source, and return the settings to ingest it."""
        from cnnlib.mnist import read_mnist_file
        from cnnlib.sources.idx import parse_idx

        digits = parse_idx(read_mnist_file("train-images-idx3-ubyte.gz"), "images")
        labels = parse_idx(read_mnist_file("train-labels-idx1-ubyte.gz"), "labels")
        chosen = np.arange(images) % len(digits)
        noise = np.random.default_rng(SEED).integers(0, 32, (images, 28, 28), np.uint8)
        source = Path(self.folder) / "idx"
        source.mkdir()
        # They are named as test images, so that all are in one split.
        (source / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.maximum(digits[chosen], noise)))
        (source / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(labels[chosen]))
        return {
            "source": {"format": "idx", "path": str(source)},
            "split": {"val_fraction": 0, "test_fraction": 0},
            "output": {"path": f"{self.folder}/set"},
        }

    def input(self) -> dict[str, Any]:
        """Return the `input` settings of score."""
        return {"path": f"{self.folder}/set", "split": SPLIT}

    def files(self) -> list[str]:
        """Return the paths of the Parquet files, which have the columns IMAGE_ID and IMAGE."""
        return open_image_set(f"{self.folder}/set").files(SPLIT)

    def frame(self, spark: Any) -> Any:
        """Return the images as a Spark DataFrame with the columns IMAGE_ID and IMAGE."""
        from pipelines.spark.read_parts import read_split

        return read_split(spark, open_image_set(f"{self.folder}/set"), SPLIT).select(IMAGE_ID, IMAGE)

    def stored(self) -> list[bytes]:
        """Return the stored bytes of each image."""
        return pa.concat_tables(pq.read_table(path, columns=[IMAGE]) for path in self.files())[IMAGE].to_pylist()

    def pixels(self, stored: Iterable[bytes]) -> np.ndarray:
        """Return the input of the model: (images, 28, 28, 1) uint8."""
        return raw_pixels(pa.array(stored, pa.binary()), self.spec.shape)


@dataclass(frozen=True)
class Photographs:
    """JPEG files of about 340 x 300 pixels in class folders. The model is ResNet-18."""

    folder: str
    model = "resnet18"
    name = f"JPEGs of 340 x 300, to {PHOTO_SIDE} x {PHOTO_SIDE}"
    spec = ImageSpec(PHOTO_SIDE, PHOTO_SIDE, 3)

    def prepare(self, images: int) -> dict[str, Any]:
        """Write the files, and return the settings with which to ingest a few more of the same kind."""
        write_photographs(Path(self.folder) / "photographs", images)
        write_photographs(Path(self.folder) / "few", PHOTOS_IN_SET)
        return {
            "source": {"format": "image_folder", "path": f"{self.folder}/few"},
            "image": {"height": PHOTO_SIDE, "width": PHOTO_SIDE},
            "output": {"path": f"{self.folder}/set"},
        }

    def input(self) -> dict[str, Any]:
        """Return the `input` settings of score."""
        return {"path": f"{self.folder}/photographs", "format": "image_folder"}

    def frame(self, spark: Any) -> Any:
        """Return the images as a Spark DataFrame with the columns IMAGE_ID and IMAGE."""
        from pyspark.sql import functions as F

        files = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
        return files.load(f"{self.folder}/photographs").select(
            F.col("path").alias(IMAGE_ID), F.col("content").alias(IMAGE)
        )

    def stored(self) -> list[bytes]:
        """Return the stored bytes of each image."""
        return [path.read_bytes() for path in photographs_in(Path(self.folder) / "photographs")]

    def pixels(self, stored: Iterable[bytes]) -> np.ndarray:
        """Return the input of the model: (images, 96, 96, 3) uint8."""
        return np.stack([decode_image(content, self.spec) for content in stored])


@dataclass(frozen=True)
class LargePhotographs(Photographs):
    """JPEG files of 2,720 x 1,500 pixels, about 1 MB each. The model is ResNet-18.

    Only a tenth of them differ, because every file has ten names.
    """

    name = f"JPEGs of 1 MB, to {PHOTO_SIDE} x {PHOTO_SIDE}"

    def prepare(self, images: int) -> dict[str, Any]:
        """Write a tenth of the files, and give each of them ten names by hard links."""
        settings = super().prepare(0)
        folder = Path(self.folder) / "photographs"
        write_photographs(Path(self.folder) / "large", -(-images // NAMES_PER_FILE), large)
        for number, path in enumerate(photographs_in(Path(self.folder) / "large") * NAMES_PER_FILE):
            if number < images:
                (folder / path.parent.name / f"{number:06d}.jpg").hardlink_to(path)
        return settings


SUBJECTS = {"digits": Digits, "photographs": Photographs, "large": LargePhotographs}
Subject = Digits | Photographs | LargePhotographs
