"""How weights are updated."""

from typing import Any, Literal

from pydantic import Field, model_validator

from cnnlib.config.settings import Settings


class ScheduleSettings(Settings):
    """How the learning rate goes on from optimizer.learning_rate."""

    name: Literal["constant", "step", "cosine", "plateau"] = Field(
        "constant",
        description="step multiplies it by factor every every_epochs, cosine brings it down to final_fraction along "
        "half a wave by the last epoch (Loshchilov and Hutter 2016), plateau multiplies it by factor when patience "
        "epochs brought no better train.monitor",
    )
    warmup_epochs: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="epochs, or part of one, in which it first rises from 0, step by step (Goyal et al. 2017)",
    )
    factor: float = Field(0.1, gt=0, lt=1, description="of step and plateau: what is left of the rate")
    every_epochs: int = Field(10, gt=0, description="of step: epochs from one cut to the next")
    patience: int = Field(2, gt=0, description="of plateau: epochs")
    final_fraction: float = Field(0.0, ge=0, lt=1, description="of cosine: share of the rate that is left at the end")


class OptimizerSettings(Settings):
    """How weights are updated."""

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
    ] = Field("adam", description="optimizer; momentum and nesterov are Keras' SGD with momentum")
    learning_rate: float = Field(
        1e-3, gt=0, allow_inf_nan=False, description="step size, as tuned for a global batch of base_batch_size"
    )
    scaling: Literal["none", "linear", "square_root"] = Field(
        "none",
        description="how learning_rate follows the global batch: multiplied by 1, by its ratio to base_batch_size "
        "(Goyal et al. 2017), or by the root of that",
    )
    base_batch_size: int = Field(128, gt=0, description="global batch that learning_rate was tuned for")
    schedule: ScheduleSettings = ScheduleSettings()
    momentum: float = Field(0.9, gt=0, lt=1, description="of momentum and nesterov")
    weight_decay: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="share of each weight that is taken off a step, times the learning rate, beside the gradient "
        "(Loshchilov and Hutter 2017); null for Keras' default, which is 0.004 for adamw and none for the others",
    )
    clip_norm: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="the gradients of all weights together are scaled down to this norm where theirs is larger",
    )
    average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="momentum of a moving average of the weights, e.g. 0.999, which is validated and saved; 0 for none",
    )
    options: dict[str, Any] = Field({}, description="Keras' own options of the optimizer, e.g. {beta_1: 0.95}")

    @model_validator(mode="after")
    def _options_are_not_settings(self) -> "OptimizerSettings":
        own = {"learning_rate", "momentum", "nesterov", "weight_decay", "use_ema", "ema_momentum", "name"}
        doubled = sorted(own & self.options.keys()) + sorted(key for key in self.options if "clip" in key)
        # RMSprop's momentum is another matter.
        doubled = [key for key in doubled if (self.name, key) != ("rmsprop", "momentum")]
        if doubled:
            raise ValueError(f"options has {doubled[0]}, for which optimizer has a setting of its own; see --help")
        return self
