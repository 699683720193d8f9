"""For any row groups and any number of workers: every row comes once, and all workers have equal steps."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cnnlib.errors import ConfigError
from cnnlib.feed.sharding import Shard, epoch_order, epoch_random, step_rows, steps_per_epoch, worker_slices

ROW_GROUPS = st.lists(st.integers(0, 40), min_size=1, max_size=12)
WORKERS = st.integers(1, 9)
BATCH_SIZES = st.integers(1, 50)
SEEDS = st.none() | st.integers(0, 2**32 - 1)


def rows_of(slices) -> list[tuple[int, int]]:
    return [(piece.row_group, row) for piece in slices for row in range(piece.start, piece.stop)]


@given(sizes=ROW_GROUPS, workers=WORKERS, seed=SEEDS, epoch=st.integers(0, 1000))
def test_all_workers_together_take_every_row_exactly_once(sizes, workers, seed, epoch):
    taken = [rows_of(worker_slices(sizes, seed, epoch, Shard(worker, workers))) for worker in range(workers)]
    assert sorted(sum(taken, [])) == [(group, row) for group, size in enumerate(sizes) for row in range(size)]
    assert max(map(len, taken)) - min(map(len, taken)) <= 1


@given(sizes=ROW_GROUPS, workers=WORKERS)
def test_without_a_seed_workers_in_turn_give_the_published_order(sizes, workers):
    taken = [rows_of(worker_slices(sizes, None, 3, Shard(worker, workers))) for worker in range(workers)]
    assert sum(taken, []) == [(group, row) for group, size in enumerate(sizes) for row in range(size)]


@given(rows=st.integers(1, 5000), workers=WORKERS, batch_size=BATCH_SIZES)
def test_steps_are_equal_on_all_workers_but_for_one_row(rows, workers, batch_size):
    assume(rows >= workers)
    steps = [step_rows(rows, batch_size, Shard(worker, workers)) for worker in range(workers)]
    assert {len(of_worker) for of_worker in steps} == {steps_per_epoch(rows, batch_size, workers)}
    assert sum(map(sum, steps)) == rows
    for of_worker in steps:
        assert max(of_worker) - min(of_worker) <= 1
        assert 1 <= min(of_worker) <= max(of_worker) <= batch_size + 1
        # A step exceeds the batch size by one row only if a further step would leave a worker without rows.
        assert max(of_worker) <= batch_size or rows % (batch_size * workers) < workers
    for of_all in zip(*steps, strict=True):
        assert max(of_all) - min(of_all) <= 1


@given(sizes=ROW_GROUPS, workers=WORKERS, batch_size=BATCH_SIZES, seed=SEEDS)
def test_a_worker_reads_as_many_rows_as_its_steps_take(sizes, workers, batch_size, seed):
    assume(sum(sizes) >= workers)
    for worker in range(workers):
        shard = Shard(worker, workers)
        read = sum(piece.rows for piece in worker_slices(sizes, seed, 0, shard))
        assert read == sum(step_rows(sum(sizes), batch_size, shard))


def test_two_workers_get_equal_parts_of_uneven_files():
    # After 15 steps of 64 rows on both workers, 17 rows would remain. So there are 16 steps, with 968 and 969 rows.
    assert [step_rows(1937, 64, Shard(worker, 2)) for worker in range(2)] == [[61] * 8 + [60] * 8, [61] * 9 + [60] * 7]


@pytest.mark.parametrize(("rows", "last"), [(127, [31, 32, 32, 32]), (128, [32] * 4), (131, [32, 33, 33, 33])])
def test_rest_of_fewer_rows_than_workers_joins_the_last_step(rows, last):
    assert [step_rows(rows, 32, Shard(worker, 4)) for worker in range(4)] == [[size] for size in last]


def test_more_workers_than_rows_are_refused():
    assert steps_per_epoch(3, 10, workers=3) == 1
    with pytest.raises(ConfigError, match="train.workers=4 exceeds the 3 rows"):
        steps_per_epoch(3, 10, workers=4)


def test_order_follows_seed_and_epoch():
    orders = {(seed, epoch): tuple(epoch_order(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(set(orders.values())) == 25
    assert {(seed, epoch): tuple(epoch_order(50, seed, epoch)) for seed, epoch in orders} == orders
    assert {tuple(sorted(order)) for order in orders.values()} == {tuple(range(50))}


def test_random_numbers_differ_by_seed_epoch_and_worker():
    streams = [epoch_random(*key) for key in [(0, 0), (0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1), (1, 0)]]
    assert len({tuple(stream.integers(0, 2**62, 4)) for stream in streams}) == 7
    np.testing.assert_array_equal(epoch_random(3, 2, 1).permutation(100), epoch_random(3, 2, 1).permutation(100))
