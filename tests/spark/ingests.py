"""Settings for small ingests, and helpers that read the results."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cnnlib.config import IngestSettings
from cnnlib.image_set.contract import ImageSet
from cnnlib.image_set.ledger import PIXEL_ID


def settings_of(source_format: str, source: Path | str, output: Path, /, **sections: dict[str, Any]) -> IngestSettings:
    """Return the settings of an ingest to 16 x 16 pixels. `sections` add settings, e.g. `split={"stratify": True}`."""
    return IngestSettings(
        source={"format": source_format, "path": str(source)} | sections.pop("source", {}),
        output={"path": str(output)} | sections.pop("output", {}),
        image={"height": 16, "width": 16} | sections.pop("image", {}),
        **sections,
    )


def rows_of(folder: Path, *splits: str) -> list[dict[str, Any]]:
    """Return the rows of some splits, each with its split. Without names, return the rows of all splits."""
    return [
        row | {"split": split}
        for split in splits or ("train", "val", "test")
        for path in sorted((folder / split).glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]


def split_of(folder: Path) -> dict[str, str]:
    """Return the split of every kept image, by path."""
    return {row["path"]: row["split"] for row in rows_of(folder)}


def label_of(folder: Path) -> dict[str, int]:
    """Return the label of every kept image, by path."""
    return {row["path"]: row["label"] for row in rows_of(folder)}


def rejects_of(folder: Path) -> dict[str, str]:
    """Return the error code of every reject, by path."""
    return {
        row["path"]: row["code"]
        for path in sorted((folder / "rejects").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    }


def is_whole(image_set: ImageSet) -> bool:
    """Return whether the set has every row that dataset.json counts, with the pixels that the ledger names."""
    folder = Path(image_set.folder.root)
    pixels: list[str] = []
    for split in image_set.splits.values():
        for file in split.files:
            images = pq.read_table(folder / file.path, columns=["image"])["image"].to_pylist()
            assert len(images) == file.rows
            pixels += [hashlib.sha256(image).hexdigest() for image in images]
    rows = [row for file in image_set.ledger for row in pq.read_table(folder / file.path).to_pylist()]
    return sorted(pixels) == sorted(row[PIXEL_ID] for row in rows if row["outcome"] == "kept")
