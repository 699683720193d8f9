"""Two real processes that train one model together, compared with one process that has all rows."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
RANKS = 2

Found = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of all processes: of two ranks per engine, and of one process alone."""
    folder = tmp_path_factory.mktemp("ranks")
    with open(folder / "log", "w") as log:
        command = [sys.executable, "-m", "tests.unit.data_parallel_rank", str(folder)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        status = process.wait(timeout=360)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert status == 0, (folder / "log").read_text()
    return folder


@pytest.fixture(scope="module", params=["ring", "collectives"])
def ranks(request: pytest.FixtureRequest, folder: Path) -> list[Found]:
    """The results of two ranks, which are connected by one of the two engines."""
    return [dict(np.load(folder / f"{request.param}-{rank}.npz")) for rank in range(RANKS)]


@pytest.fixture(scope="module")
def alone(folder: Path) -> Found:
    """The results of one process that has all rows."""
    return dict(np.load(folder / "alone-0.npz"))


def those(found: Found, prefix: str) -> list[np.ndarray]:
    return [found[name] for name in sorted(found) if name.startswith(prefix)]


def test_gradients_are_those_of_the_joint_batch(ranks: list[Found], alone: Found) -> None:
    weights = [those(found, "joint/weights/") for found in (*ranks, alone)]
    assert len(weights[0]) == 6  # of three dense layers
    for zero, one, joint in zip(*weights, strict=True):
        np.testing.assert_array_equal(zero, one)
        np.testing.assert_allclose(zero, joint, rtol=0, atol=1e-6)


def test_metrics_are_of_the_rows_of_all_ranks(ranks: list[Found], alone: Found) -> None:
    for metric in ("accuracy", "val_accuracy", "loss", "val_loss"):
        values = [found[f"joint/{metric}"] for found in ranks]
        np.testing.assert_array_equal(values[0], values[1])
        np.testing.assert_allclose(values[0], alone[f"joint/{metric}"], atol=1e-6, err_msg=metric)
    # Whole rows of the 37. The 19 and 18 rows of the single ranks would not give whole numbers.
    assert alone["val_rows"] == 37
    counts = ranks[0]["joint/val_accuracy"] * 37
    np.testing.assert_allclose(counts, counts.round(), atol=1e-5)


def test_gather_gives_each_ranks_values_in_order(ranks: list[Found]) -> None:
    for found in ranks:
        np.testing.assert_array_equal(found["gathered"], [[0.25, 7.0], [1.25, 7.0]])


def test_sum_is_kept_when_there_is_another(ranks: list[Found]) -> None:
    for found in ranks:
        np.testing.assert_array_equal(found["sums"], [[2.0] * 20, [20.0] * 20])


def test_batch_normalization_averages_what_each_rank_has_seen(ranks: list[Found]) -> None:
    own = [those(found, "own/weights/") for found in ranks]
    averaged = [those(found, "averaged/weights/") for found in ranks]
    assert len(own[0]) == 2
    for zero, one, mean_on_zero, mean_on_one in zip(*own, *averaged, strict=True):
        # Each rank normalised only its own rows.
        assert np.abs(zero - one).max() > 1e-3
        np.testing.assert_array_equal(mean_on_zero, mean_on_one)
        np.testing.assert_allclose(mean_on_zero, (zero + one) / 2, rtol=1e-6)


def test_batch_normalization_keeps_weights_equal_bit_for_bit(ranks: list[Found]) -> None:
    for zero, one in zip(*(those(found, "normalised/weights/") for found in ranks), strict=True):
        np.testing.assert_array_equal(zero, one)


def test_dropout_depends_on_seed_rank_and_epoch(ranks: list[Found]) -> None:
    drawn = [found["draws"] for found in ranks]
    for found in ranks:
        np.testing.assert_array_equal(found["draws"], found["draws again"])
        assert (found["draws"] != found["draws by another seed"]).any(axis=1).all()
        assert (found["draws"][0] != found["draws"][1]).any()
    assert (drawn[0] != drawn[1]).any(axis=1).all()
