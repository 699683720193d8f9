"""The ring's formula against numbers worked out by hand, and published figures against their table."""

import pytest

from cnnlib.training.scaling import (
    MXNET_IMAGES_PER_SECOND,
    MXNET_QUOTED,
    Network,
    efficiency,
    expected_scaling,
    published_efficiency,
    ring_all_reduce_seconds,
)

# 50 us, 10 Gbit/s
ETHERNET = Network(latency_s=50e-6, bytes_per_second=1.25e9)
# 20 Gbit/s, as the published figures were measured with
P2 = Network(latency_s=50e-6, bytes_per_second=2.5e9)


@pytest.mark.parametrize(
    ("workers", "message_bytes", "seconds"),
    [
        (1, 1e8, 0.0),
        # 2 messages of half of 100 MB: 2 * 50 us + 2 * 40 ms
        (2, 1e8, 0.0801),
        # 30 * 50 us + 30/16 * 80 ms
        (16, 1e8, 0.1515),
        # 510 * 50 us + 510/256 * 80 ms
        (256, 1e8, 0.184875),
        # only the latency of the messages
        (256, 0, 0.0255),
    ],
)
def test_ring_takes_the_seconds_of_the_formula(workers, message_bytes, seconds):
    assert ring_all_reduce_seconds(workers, message_bytes, ETHERNET) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(("exposed", "expected"), [(0.0, 1.0), (0.02, 0.5), (0.06, 0.25)])
def test_efficiency_is_the_fraction_of_computation(exposed, expected):
    assert efficiency(0.02, exposed) == pytest.approx(expected)


def test_scaling_of_16_workers_by_hand():
    scaling = expected_scaling(16, step_seconds=0.1, worker_batch_size=32, message_bytes=100_000_000, network=ETHERNET)
    assert scaling.all_reduce_seconds == pytest.approx(0.1515)
    assert scaling.images_per_second == pytest.approx(16 * 32 / 0.2515)
    assert scaling.efficiency == pytest.approx(0.1 / 0.2515)
    # Two thirds of the step hide 66.7 of the 151.5 ms.
    assert scaling.overlapped_efficiency == pytest.approx(0.1 / (0.1 + 0.1515 - 0.2 / 3))


def test_short_exchange_can_be_hidden_completely():
    scaling = expected_scaling(4, step_seconds=1.0, worker_batch_size=32, message_bytes=1000, network=ETHERNET)
    assert scaling.overlapped_efficiency == 1.0
    assert scaling.efficiency < 1.0


def test_one_worker_loses_nothing():
    scaling = expected_scaling(1, step_seconds=0.1, worker_batch_size=32, message_bytes=1e8, network=ETHERNET)
    assert (scaling.efficiency, scaling.images_per_second) == (1.0, 320.0)


@pytest.mark.parametrize("message_bytes", [1e3, 1e8])
def test_more_workers_are_never_more_efficient(message_bytes):
    expected = [
        expected_scaling(
            workers, step_seconds=0.1, worker_batch_size=32, message_bytes=message_bytes, network=ETHERNET
        ).efficiency
        for workers in (1, 2, 4, 16, 256, 4096)
    ]
    assert expected == sorted(expected, reverse=True)


# --- what was published


@pytest.mark.parametrize(
    ("model", "at_16", "at_256"), [("Inception v3", 0.92, 0.86), ("ResNet-152", 0.93, 0.90), ("AlexNet", 0.58, 0.53)]
)
def test_published_efficiency_follows_from_images_per_second(model, at_16, at_256):
    assert published_efficiency(model, 16) == pytest.approx(at_16, abs=0.005)
    assert published_efficiency(model, 256) == pytest.approx(at_256, abs=0.005)


def test_unmeasured_number_of_gpus_has_no_figure():
    assert published_efficiency("ResNet-152", 48) is None


def test_tables_have_the_same_numbers_of_gpus():
    assert {tuple(measured) for measured in MXNET_IMAGES_PER_SECOND.values()} == {(1, 2, 4, 8, 16, 32, 64, 128, 256)}
    assert MXNET_QUOTED == {16: 0.91, 256: 0.88}


@pytest.mark.parametrize(("model", "batch", "megabytes"), [("Inception v3", 32, 95), ("ResNet-152", 32, 240)])
def test_formula_is_close_to_the_figures_of_256_gpus(model, batch, megabytes):
    # The README with these images per second also gives the size of each model.
    step_seconds = batch / MXNET_IMAGES_PER_SECOND[model][1]
    scaling = expected_scaling(
        256, step_seconds=step_seconds, worker_batch_size=batch, message_bytes=megabytes * 1e6, network=P2
    )
    assert scaling.efficiency == pytest.approx(published_efficiency(model, 256), abs=0.06)
