"""Blocks into batches: whatever the sizes, every row once; shuffled by seed, and mixed across blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnlib.feed.shuffling import in_order, shuffled

SIZES = st.lists(st.integers(0, 30), max_size=10)


def blocks(sizes):
    """Row i has the image [[[i]]] (as int64, to tell any number of rows apart) and the label -i."""
    start = 0
    for size in sizes:
        ids = np.arange(start, start + size)
        yield ids.reshape(-1, 1, 1, 1), -ids
        start += size


def ids_of(batches):
    """The rows of each batch; their labels must have come along."""
    result = []
    for images, labels in batches:
        np.testing.assert_array_equal(images.ravel(), -labels)
        result.append(images.ravel().tolist())
    return result


def random(seed=0):
    return np.random.default_rng(seed)


def expected_sizes(rows, batch_size):
    whole, rest = divmod(rows, batch_size)
    return [batch_size] * whole + [rest] * bool(rest)


@given(sizes=SIZES, batch_size=st.integers(1, 40))
def test_in_order_gives_every_row_once_in_its_order(sizes, batch_size):
    batches = ids_of(in_order(blocks(sizes), batch_size))
    assert [len(batch) for batch in batches] == expected_sizes(sum(sizes), batch_size)
    assert sum(batches, []) == list(range(sum(sizes)))


@given(sizes=SIZES, batch_size=st.integers(1, 40), pool_rows=st.integers(1, 60), seed=st.integers(0, 99))
def test_shuffled_gives_every_row_once(sizes, batch_size, pool_rows, seed):
    batches = ids_of(shuffled(blocks(sizes), batch_size, pool_rows, random(seed)))
    assert [len(batch) for batch in batches] == expected_sizes(sum(sizes), batch_size)
    assert sorted(sum(batches, [])) == list(range(sum(sizes)))


@given(sizes=SIZES, batch_size=st.integers(1, 40), pool_rows=st.integers(1, 60), seed=st.integers(0, 99))
def test_same_seed_gives_the_same_order(sizes, batch_size, pool_rows, seed):
    first, second = (ids_of(shuffled(blocks(sizes), batch_size, pool_rows, random(seed))) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("pool_rows", [10, 100, 10_000])
def test_another_seed_gives_another_order(pool_rows):
    orders = {tuple(sum(ids_of(shuffled(blocks([50] * 10), 16, pool_rows, random(s))), [])) for s in range(5)}
    assert len(orders) == 5


def test_rows_of_different_blocks_mix_in_a_batch():
    batches = ids_of(shuffled(blocks([100] * 20), 50, 500, random()))
    # A batch of 50 out of a pool of at least 500 rows, 5 blocks: one from a single block has no chance.
    assert min(len({row // 100 for row in batch}) for batch in batches) >= 5


def test_pool_holds_no_more_than_twice_its_rows_and_a_block():
    """Rows leave as rows come: of a long split, only the pool is in memory."""
    read = given_out = most = 0

    def counted():
        nonlocal read
        for block in blocks([100] * 50):
            read += len(block[0])
            yield block

    for images, _ in shuffled(counted(), 64, 500, random()):
        most = max(most, read - given_out)
        given_out += len(images)
    assert given_out == 5000
    assert most <= 2 * 500 + 64 + 100
