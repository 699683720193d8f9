"""Two real processes that train one model together, held against one process that has all rows."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnlib.training.ranks import ALONE
from pipelines.train.workers.failure_signal import address_of, listen
from tests.unit.data_parallel_rank import VAL_ROWS, found_by

ROOT = Path(__file__).parents[2]
RANKS = 2

Found = dict[str, np.ndarray]


@pytest.fixture(scope="module", params=["ring", "collectives"])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    """What each of two connected ranks found, connected in both ways that there are."""
    folder = tmp_path_factory.mktemp("ranks")
    listeners = [listen("127.0.0.1", None) for _ in range(RANKS)]
    addresses = ",".join(map(address_of, listeners))
    processes = []
    for rank, listener in enumerate(listeners):
        arguments = [request.param, str(rank), addresses, str(listener.fileno()), str(folder / f"{rank}.npz")]
        with open(folder / f"{rank}.log", "w") as log:
            command = [sys.executable, "-m", "tests.unit.data_parallel_rank", *arguments]
            processes.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, pass_fds=[listener.fileno()]))
        listener.close()
    try:
        statuses = [process.wait(timeout=180) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert statuses == [0] * RANKS, (folder / "0.log").read_text() + (folder / "1.log").read_text()
    return [dict(np.load(folder / f"{rank}.npz")) for rank in range(RANKS)]


@pytest.fixture(scope="module")
def alone() -> Found:
    """What one process finds that has all rows."""
    return found_by(ALONE)


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
        told = [found[f"joint/{metric}"] for found in ranks]
        np.testing.assert_array_equal(told[0], told[1])
        np.testing.assert_allclose(told[0], alone[f"joint/{metric}"], atol=1e-6, err_msg=metric)
    # Whole rows of the 37, which 19 and 18 of each rank alone would not give.
    counts = ranks[0]["joint/val_accuracy"] * VAL_ROWS
    np.testing.assert_allclose(counts, counts.round(), atol=1e-5)


def test_gather_gives_each_ranks_values_in_order(ranks: list[Found]) -> None:
    for found in ranks:
        np.testing.assert_array_equal(found["collect_from_tasks"], [[0.25, 7.0], [1.25, 7.0]])


def test_sum_is_kept_when_there_is_another(ranks: list[Found]) -> None:
    for found in ranks:
        np.testing.assert_array_equal(found["sums"], [[2.0] * 20, [20.0] * 20])


def test_batch_normalization_averages_what_each_rank_has_seen(ranks: list[Found], alone: Found) -> None:
    own = [those(found, "own/weights/") for found in ranks]
    averaged = [those(found, "averaged/weights/") for found in ranks]
    assert len(own[0]) == 2
    for zero, one, mean_on_zero, mean_on_one in zip(*own, *averaged, strict=True):
        # Each normalised its own rows only.
        assert np.abs(zero - one).max() > 1e-3
        np.testing.assert_array_equal(mean_on_zero, mean_on_one)
        np.testing.assert_allclose(mean_on_zero, (zero + one) / 2, rtol=1e-6)


def test_model_with_batch_normalization_is_bit_for_bit_equal_on_all_ranks(ranks: list[Found]) -> None:
    for zero, one in zip(*(those(found, "normalised/weights/") for found in ranks), strict=True):
        np.testing.assert_array_equal(zero, one)


def test_dropout_draws_differ_by_rank_and_epoch_and_repeat_by_seed(ranks: list[Found]) -> None:
    drawn = [found["draws"] for found in ranks]
    for found in ranks:
        np.testing.assert_array_equal(found["draws"], found["draws again"])
        assert (found["draws"] != found["draws by another seed"]).any(axis=1).all()
        assert (found["draws"][0] != found["draws"][1]).any()
    assert (drawn[0] != drawn[1]).any(axis=1).all()
