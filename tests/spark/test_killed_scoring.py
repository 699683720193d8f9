"""Kill the driver, executors or Python workers of scorings: the old or the new predictions stay, never a mixture."""

import json
import random
import shutil
from itertools import cycle, islice
from pathlib import Path

from cnnlib.config import PredictionSettings, PredictionsOutputSettings, ScoreInputSettings, ScoreSettings
from tests.conftest import write_photos
from tests.spark import own_process
from tests.spark.conftest import Trained
from tests.spark.killed_scoring import KILLS_OF_WORKERS, left_by, one_ahead

KILLS_OF_DRIVERS = 10
KILLS_OF_STREAMS = 4


def pair_of(trained: Trained, output: Path) -> tuple[ScoreSettings, ScoreSettings]:
    """Return the settings of two scorings of different images with the same output path."""
    fewer, more = (
        ScoreSettings(
            model="models:/digits@champion",
            input=ScoreInputSettings(path=trained.image_set.folder.uri, split=split),
            output=PredictionsOutputSettings(path=str(output), overwrite=True),
            tracking=trained.tracking,
        )
        for split in ("test", "all")
    )
    return fewer, more


def test_killed_driver_leaves_whole_predictions(trained: Trained, tmp_path: Path) -> None:
    output = tmp_path / "out"
    pair = pair_of(trained, output)
    scorings = one_ahead(islice(cycle(pair), KILLS_OF_DRIVERS + 3))
    expected = []
    for scoring in islice(scorings, 2):
        seconds = scoring.seconds()
        expected.append(left_by(output))
    assert [count for _, count in expected] == [1, 1]
    chance = random.Random(2)
    found = [expected[1]]
    for scoring in islice(scorings, KILLS_OF_DRIVERS):
        scoring.kill_after(chance.uniform(0, 0.9 * seconds))
        found.append(left_by(output))
        assert found[-1] in expected
    next(scorings).seconds()
    assert left_by(output) == expected[0]
    named = {file["path"] for file in json.loads((output / "summary.json").read_text())["files"]}
    assert {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()} == {
        *named,
        "summary.json",
    }
    # The kills prove something only if enough of them came before the commit.
    assert sum(before == after for before, after in zip(found, found[1:], strict=False)) >= KILLS_OF_DRIVERS / 3


def test_killed_workers_leave_whole_predictions(trained: Trained, tmp_path: Path) -> None:
    pair = pair_of(trained, tmp_path / "out")
    (tmp_path / "settings.json").write_text(json.dumps([settings.model_dump(mode="json") for settings in pair]))
    result = own_process.run("killed_scoring", tmp_path)
    assert result["whole"] == [True] * KILLS_OF_WORKERS
    # Early in a job there may be no Python worker to kill yet.
    assert result["hits"] >= KILLS_OF_WORKERS / 2
    assert result["last is right"]
    assert result["left behind"] == []
    # Spark repeats the lost tasks, so most jobs finish.
    assert result["ends"].count("well") >= KILLS_OF_WORKERS / 2


def test_killed_stream_scores_each_file_once(trained: Trained, tmp_path: Path) -> None:
    coming = sorted(write_photos(tmp_path / "photos", per_class=6 * (KILLS_OF_STREAMS + 2)).glob("*/*"))
    folder, output = tmp_path / "new", tmp_path / "out"
    folder.mkdir()
    every_night = ScoreSettings(
        model="models:/digits@champion",
        input=ScoreInputSettings(path=str(folder), format="image_folder"),
        output=PredictionsOutputSettings(path=str(output)),
        score=PredictionSettings(mode="stream"),
        tracking=trained.tracking,
    )

    def come() -> None:
        for _ in range(12):
            photo = coming.pop()
            shutil.copy(photo, folder / f"{photo.parent.name}-{photo.name}")

    scorings = one_ahead([every_night] * (KILLS_OF_STREAMS + 2))
    come()
    seconds = next(scorings).seconds()
    chance = random.Random(3)
    for scoring in islice(scorings, KILLS_OF_STREAMS):
        come()
        scoring.kill_after(chance.uniform(0, 0.9 * seconds))
    come()
    next(scorings).seconds()
    paths, _ = left_by(output)
    assert paths == sorted(path.name for path in folder.iterdir())
