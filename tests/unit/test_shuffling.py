"""Mixing blocks: every row comes once for any sizes, in the order of the seed, mixed across blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnlib.feed.shuffling import mixed

SIZES = st.lists(st.integers(0, 30), max_size=10)


def blocks(sizes):
    """Yield blocks of these sizes. Row i has the image [[[i]]] (int64, so that all rows differ) and the label -i."""
    start = 0
    for size in sizes:
        ids = np.arange(start, start + size)
        yield ids.reshape(-1, 1, 1, 1), -ids
        start += size


def encoded(sizes):
    """Yield blocks of these sizes. Row i has the image b"i" and the label -i."""
    for images, labels in blocks(sizes):
        yield np.array([b"%d" % number for number in images.ravel()], object), labels


def ids_of(mixed_blocks):
    """Return the row numbers of each block; check that the labels have moved with their images."""
    result = []
    for images, labels in mixed_blocks:
        np.testing.assert_array_equal(images.ravel().astype(np.int64), -labels)
        result.append((-labels).tolist())
    return result


def random(seed=0):
    return np.random.default_rng(seed)


@given(sizes=SIZES, pool_rows=st.integers(1, 60), seed=st.integers(0, 99))
@pytest.mark.parametrize("stored", [blocks, encoded])
def test_every_row_comes_once(stored, sizes, pool_rows, seed):
    taken = ids_of(mixed(stored(sizes), pool_rows, random(seed)))
    assert sorted(sum(taken, [])) == list(range(sum(sizes)))
    assert all(taken)


@given(sizes=SIZES, pool_rows=st.integers(1, 60), seed=st.integers(0, 99))
def test_same_seed_gives_the_same_order(sizes, pool_rows, seed):
    first, second = (ids_of(mixed(blocks(sizes), pool_rows, random(seed))) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("pool_rows", [10, 100, 10_000])
def test_another_seed_gives_another_order(pool_rows):
    orders = {tuple(sum(ids_of(mixed(blocks([50] * 10), pool_rows, random(seed))), [])) for seed in range(5)}
    assert len(orders) == 5


def test_rows_of_different_blocks_mix():
    taken = sum(ids_of(mixed(blocks([100] * 20), 500, random())), [])
    batches = [taken[start : start + 50] for start in range(0, 2000, 50)]
    # Each batch of 50 comes from a pool of 500 rows of at least five blocks. Fewer than 4 blocks in a batch is
    # practically impossible.
    assert min(len({row // 100 for row in batch}) for batch in batches) >= 4


def test_set_that_fits_into_the_pool_is_permuted_evenly():
    """Each position is equally likely: over 400 seeds, the positions of row 0 are spread like fair draws."""
    positions = [sum(ids_of(mixed(blocks([7, 13]), 20, random(seed))), []).index(0) for seed in range(400)]
    counts = np.bincount(positions, minlength=20)
    # Chi-square with 19 degrees of freedom exceeds 43.8 once in 1,000 fair draws. The seeds are fixed.
    assert ((counts - 20) ** 2 / 20).sum() < 43.8


def test_pool_holds_no_more_than_its_rows_and_a_block():
    """Rows leave as new ones arrive, so only the pool of a long split is in memory."""
    read = given_out = most = 0

    def counted():
        nonlocal read
        for block in blocks([100] * 50):
            read += len(block[0])
            yield block

    for images, _ in mixed(counted(), 500, random()):
        most = max(most, read - given_out)
        given_out += len(images)
    assert given_out == 5000
    assert most <= 500 + 100
