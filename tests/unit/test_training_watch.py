"""What training watches: divergence, dead units, gradients, and the advice from the curves."""

import numpy as np
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402

from cnnlib.config import TrainSettings  # noqa: E402
from cnnlib.errors import DivergenceError  # noqa: E402
from cnnlib.feed.replay import image_ids_of_step  # noqa: E402
from cnnlib.models import build_model  # noqa: E402
from cnnlib.training.advice import advice_on  # noqa: E402
from cnnlib.training.batches import Batches  # noqa: E402
from cnnlib.training.callbacks import Divergence  # noqa: E402
from cnnlib.training.layer_monitor import dead_units, gradient_norms  # noqa: E402
from cnnlib.training.ranks import ALONE  # noqa: E402
from tests.unit.trainings import LENET, RecordedFit, history_of, settings, striped_images, striped_set  # noqa: E402


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    return striped_set(tmp_path_factory.mktemp("set"))


# --- divergence


@pytest.mark.parametrize("rate", [1e4, 1e30])
def test_divergence_stops_training_and_quotes_the_step(image_set, rate):
    recorded = RecordedFit()
    given = settings(image_set, epochs=3, learning_rate=rate, optimizer={"name": "sgd"})
    with pytest.raises(DivergenceError) as raised:
        recorded.fit(image_set, given)
    (done, _) = recorded.steps[-1]
    epoch, step = divmod(done - 1, 8)
    assert f"after step {step + 1} of epoch {epoch + 1}, with a learning rate of {rate:.3g}" in raised.value.message
    assert "\n" not in raised.value.message
    assert raised.value.exit_status == 3
    assert list(raised.value.quoted) == image_ids_of_step(
        image_set, "train", epoch=epoch, step=step, worker_batch_size=32, seed=0, timeout_s=60, shuffle_mb=0.025
    )
    assert len(set(raised.value.quoted)) == 30  # of eight such steps


def test_rare_class_with_a_large_weight_is_no_divergence(image_set):
    limits = [Divergence(2, lambda epoch, step: ["id"], heaviest)._limit for heaviest in (0.5, 1.0, 2500.0)]
    assert limits == pytest.approx([69.3, 69.3, 173_287], rel=1e-3)
    counts = image_set.split("train").class_counts
    balanced = Batches(image_set, settings(image_set, class_weights="balanced"), ALONE)
    assert balanced.heaviest == pytest.approx(sum(counts) / 3 / min(counts))
    assert Batches(image_set, settings(image_set), ALONE).heaviest == 1.0


# --- layers


def relu_model(bias: list[float]) -> keras.Model:
    pixels = keras.Input((2, 2, 1))
    hidden = keras.layers.Conv2D(4, 1, activation="relu", name="conv", bias_initializer="zeros")(pixels)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(hidden)
    logits = keras.layers.Dense(2, name="logits")(keras.layers.Dense(3, activation="tanh", name="tanh")(pooled))
    model = keras.Model(pixels, logits)
    model.get_layer("conv").set_weights([np.ones((1, 1, 1, 4)), np.array(bias)])
    return model


def test_units_that_no_image_makes_active_are_dead():
    images = np.zeros((3, 2, 2, 1), np.float32)
    images[2, 1, 0] = 1.0
    # With a bias of -0.5, one pixel of one image makes a unit active.
    assert dead_units(relu_model([0.1, -0.5, -1.0, -2.0]), images) == {"dead_units/conv": 0.5}
    assert dead_units(relu_model([0.1, -0.5, -1.0, -2.0]), images[:2]) == {"dead_units/conv": 0.75}


def test_chunks_do_not_change_the_results(monkeypatch):
    model = build_model("lenet", image_shape=(16, 16, 1), classes=3)
    images, labels = striped_images(40)
    dead, norms = dead_units(model, images), gradient_norms(model, images, labels)
    monkeypatch.setattr("cnnlib.training.layer_monitor._CHUNK_BYTES", 250_000)
    assert dead_units(model, images) == dead
    assert gradient_norms(model, images, labels) == pytest.approx(norms, rel=1e-4)


def test_gradient_norm_is_that_of_the_formula():
    model = build_model("mlp", image_shape=(4, 4, 1), classes=3, units=[])
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (8, 4, 4, 1), np.uint8), random.integers(0, 3, 8)
    pixels = images.reshape(8, 16) / 255
    kernel, bias = model.get_layer("logits").get_weights()
    exponentials = np.exp(pixels @ kernel + bias)
    # (images, classes): the derivative of the cross-entropy by the logits
    errors = exponentials / exponentials.sum(axis=1, keepdims=True) - np.eye(3)[labels]
    gradients = [pixels.T @ errors / 8, errors.mean(axis=0)]
    expected = np.sqrt(sum(np.square(gradient).sum() for gradient in gradients))
    assert gradient_norms(model, images, labels) == {"gradient_norm/logits": pytest.approx(expected, rel=1e-4)}


def test_watch_layers_adds_metrics_to_every_epoch(image_set):
    history = history_of(image_set, settings(image_set, epochs=2, patience=0, model=LENET, watch_layers=True))
    assert {name for name in history if "/" in name} == {
        *(f"dead_units/{layer}" for layer in ("conv_1", "conv_2", "hidden_1")),
        *(f"gradient_norm/{layer}" for layer in ("conv_1", "conv_2", "hidden_1", "logits")),
    }
    assert {len(values) for values in history.values()} == {2}
    without = history_of(image_set, settings(image_set, epochs=2, patience=0, model=LENET, watch_layers=False))
    assert [name for name in without if "/" in name] == []
    # Watching does not change the training.
    assert without["val_loss"] == pytest.approx(history["val_loss"], rel=1e-4)


# --- curves


def advice(loss, val_loss=None, **others) -> dict[str, str]:
    history = {"loss": loss, "val_loss": val_loss or loss} | others
    warmup = {"schedule": {"warmup_epochs": others.pop("warmup", 0)}}
    return advice_on(history, TrainSettings(data={"path": "set"}, optimizer=warmup), classes=10)


@pytest.mark.parametrize(
    ("loss", "val_loss", "kinds"),
    [
        ([1.0, 0.5, 0.3, 0.2], [1.0, 0.6, 0.5, 0.45], []),
        # The gap grows, but validation still gets better.
        ([1.0, 0.5, 0.2, 0.1], [1.0, 0.8, 0.7, 0.69], []),
        ([1.0, 0.5, 0.3, 0.2], [1.0, 0.6, 0.7, 0.8], ["overfitting"]),
        # A rise in a single epoch, and one that is too small.
        ([1.0, 0.5, 0.3, 0.2], [1.0, 0.6, 0.5, 0.8], []),
        ([1.0, 0.5, 0.3, 0.2], [1.0, 0.6, 0.61, 0.62], []),
        ([1.0], [90.0], ["validation_far_off"]),
        ([0.01], [4.7], ["validation_far_off"]),
        ([0.01], [4.5], []),
        ([1.5], [4.7], []),
        ([5.0], None, ["rate_too_high"]),
        ([2.5], None, []),
        ([1.0, 1.1, 1.3], None, ["rate_too_high"]),
        ([1.0, 1.1, 0.9], None, []),
        ([2.30, 2.28], None, ["rate_too_low"]),
        ([2.44, 2.42], None, ["rate_too_low"]),
        ([2.30], None, []),
        ([2.30, 1.9], None, []),
        ([2.302, 2.303], None, []),
    ],
)
def test_curves_give_the_expected_kinds_of_advice(loss, val_loss, kinds):
    assert list(advice(loss, val_loss)) == kinds


def test_warm_up_is_not_called_too_low_a_rate():
    given = TrainSettings(data={"path": "set"}, optimizer={"schedule": {"warmup_epochs": 1.5}})
    slow = [2.30, 2.29, 2.28, 2.27]
    assert [list(advice_on({"loss": slow[:n], "val_loss": slow[:n]}, given, 10)) for n in (2, 3, 4)] == [
        [],
        [],
        ["rate_too_low"],
    ]


def test_advice_quotes_the_figures():
    assert advice([1.0, 0.5, 0.3, 0.2], [1.0, 0.6, 0.7, 0.8])["overfitting"].startswith(
        "overfitting: since epoch 2 val_loss went up from 0.6000 to 0.8000 while loss went down from 0.5000 to 0.2000;"
    )
    gradients = {"gradient_norm/first": [1e-9], "gradient_norm/last": [2e3]}
    assert advice([1.0], **gradients) == {
        "vanishing_gradients": "vanishing gradients: their norm is 1e-09 in first and 2e+03 in last; take another "
        "activation, normalisation or shortcuts",
        "exploding_gradients": "exploding gradients: their norm is 2e+03 in last; set optimizer.clip_norm",
    }
    assert advice([1.0], **{"dead_units/a": [0.2], "dead_units/b": [0.75]}) == {
        "dead_units": "dead units: 75% of b were never active on a validation batch; lower optimizer.learning_rate, "
        "or take another activation"
    }


def test_model_that_is_right_more_often_does_not_overfit():
    losses = {"loss": [1.0, 0.5, 0.3, 0.2], "val_loss": [1.0, 0.6, 0.7, 0.8]}
    settings = TrainSettings(data={"path": "set"})
    assert advice_on(losses | {"val_accuracy": [0.5, 0.8, 0.8, 0.81]}, settings, 10) == {}
    assert list(advice_on(losses | {"val_accuracy": [0.5, 0.8, 0.8, 0.79]}, settings, 10)) == ["overfitting"]


def test_advice_names_only_what_was_not_tried():
    losses = {"loss": [1.0, 0.5, 0.3, 0.2], "val_loss": [1.0, 0.6, 0.7, 0.8]}
    settings = TrainSettings(
        data={"path": "set"},
        augment={"flip": "horizontal"},
        optimizer={"weight_decay": 0.01},
        train={"label_smoothing": 0.1},
    )
    words = advice_on(losses, settings, 10)["overfitting"]
    assert words.endswith("To go further, take a smaller model, or more images")
