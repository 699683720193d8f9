"""What ingest says of the splits of a new set, so that nobody learns it from a training."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.ingest.flow import remarks_on_splits
from tests.unit.image_sets import write_image_set


@pytest.mark.parametrize(
    ("splits", "labelled", "said"),
    [
        (["train"] * 8, True, ["warning: the val split has no images", "the train split has 2 row groups"]),
        (["train"] * 8, False, ["the train split has 2 row groups"]),
        (["train"] * 6 + ["val"] * 2, True, ["the train split has 2 row groups"]),
        (["test"] * 8, True, []),
    ],
    ids=["no val", "no val, not labelled", "both", "test only"],
)
def test_empty_val_split_and_few_row_groups_are_told(
    tmp_path: Path, splits: list[str], labelled: bool, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.ingest.flow.FEWEST_ROW_GROUPS", 3)
    images = np.zeros((8, 4, 4, 1), np.uint8)
    image_set = write_image_set(
        tmp_path / "set", images, [0, 1] * 4, splits, classes=("a", "b"), files=1, rows_per_row_group=4
    )
    remarks = list(remarks_on_splits(image_set, labelled=labelled))
    assert [remark.split(",")[0] for remark in remarks] == said
    if "warning" in remarks[:1]:
        assert "raise split.val_fraction; if the source has splits of its own, give it a val folder" in remarks[0]
