"""The optimizer of a training and the schedule of its learning rate."""

from typing import Any, Literal

from pydantic import Field, model_validator

from cnnlib.config.settings import Settings


class ScheduleSettings(Settings):
    """How the learning rate changes during training. It starts from optimizer.learning_rate."""

    name: Literal["constant", "step", "cosine", "plateau"] = Field(
        "constant",
        description="step multiplies the rate by factor every every_epochs; cosine lowers it to final_fraction along "
        "half a cosine wave until the last epoch (Loshchilov and Hutter 2016); plateau multiplies it by factor after "
        "patience epochs without a better train.monitor",
    )
    warmup_epochs: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="epochs, also a part of one, in which the rate first rises from 0, step by step (Goyal et al. "
        "2017)",
    )
    factor: float = Field(0.1, gt=0, lt=1, description="step, plateau: the rate is multiplied by this")
    every_epochs: int = Field(10, gt=0, description="step: epochs between two cuts of the rate")
    patience: int = Field(2, gt=0, description="plateau: epochs without a better train.monitor before a cut")
    final_fraction: float = Field(0.0, ge=0, lt=1, description="cosine: fraction of the rate that is left at the end")


class OptimizerSettings(Settings):
    """The optimizer, which updates the weights."""

    name: Literal[
        "sgd",
        "momentum",
        "nesterov",
        "adagrad",
        "adadelta",
        "rmsprop",
        "adam",
        "adamw",
        "nadam",
        "adamax",
        "adafactor",
        "lion",
        "ftrl",
    ] = Field("adam", description="an optimizer of Keras; momentum and nesterov are its SGD with momentum")
    learning_rate: float = Field(
        1e-3, gt=0, allow_inf_nan=False, description="step size, tuned for a global batch of base_batch_size images"
    )
    scaling: Literal["none", "linear", "square_root"] = Field(
        "none",
        description="how learning_rate grows with the global batch: none keeps it, linear multiplies it by the ratio "
        "to base_batch_size (Goyal et al. 2017), square_root by the square root of this ratio",
    )
    base_batch_size: int = Field(128, gt=0, description="size of the global batch that learning_rate was tuned for")
    schedule: ScheduleSettings = ScheduleSettings()
    momentum: float = Field(0.9, gt=0, lt=1, description="momentum, nesterov: the momentum of SGD")
    weight_decay: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="each step also shrinks every weight by this fraction times the learning rate (decoupled weight "
        "decay, Loshchilov and Hutter 2017); null takes Keras' default: 0.004 for adamw, none for the others",
    )
    clip_norm: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="largest norm of all gradients together; larger gradients are scaled down to it",
    )
    average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="momentum of a moving average of the weights, e.g. 0.999; the average is validated and saved in "
        "place of the weights; 0 for none",
    )
    options: dict[str, Any] = Field({}, description="options of the Keras optimizer, e.g. {beta_1: 0.95}")

    @model_validator(mode="after")
    def _options_are_not_settings(self) -> "OptimizerSettings":
        own = {"learning_rate", "momentum", "nesterov", "weight_decay", "use_ema", "ema_momentum", "name"}
        doubled = sorted(own & self.options.keys()) + sorted(key for key in self.options if "clip" in key)
        # The momentum of RMSprop is another quantity than ours.
        doubled = [key for key in doubled if (self.name, key) != ("rmsprop", "momentum")]
        if doubled:
            raise ValueError(f"options has {doubled[0]}, but optimizer has a setting for it; see --help")
        return self
