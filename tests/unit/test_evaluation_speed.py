"""The speeds that the speed gate compares."""

import numpy as np

from cnnlib.evaluation import speed


def test_few_images_are_repeated_until_a_turn_is_long(monkeypatch) -> None:
    monkeypatch.setattr(speed, "_rate", lambda predict, images: float(predict(images)))
    images = np.arange(9 * 4, dtype=np.uint8).reshape(9, 2, 2, 1)
    seen = []

    def predict(shown: np.ndarray) -> int:
        seen.append(shown)
        return 400

    rates = speed.images_per_second([predict, predict], images)
    assert rates.tolist() == [[400.0, 400.0]] * speed.ROUNDS
    # 400 images/s for a quarter of a second
    assert {len(shown) for shown in seen[-2 * speed.ROUNDS :]} == {100}
    np.testing.assert_array_equal(seen[-1][9:18], images)
