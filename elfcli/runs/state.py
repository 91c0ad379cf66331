"""The state of a training run, which a checkpoint saves."""

from typing import Any, NamedTuple

import jax


class TrainState(NamedTuple):
    """Everything that the next training step depends on."""

    step: jax.Array  # optimizer steps done, int32
    params: Any
    ema: Any
    opt_state: Any
    key: jax.Array  # key data, uint32
    totals: dict[str, jax.Array]  # per metric (sum, count) since the last logged step
    skipped_in_a_row: jax.Array  # latest steps in sequence whose loss or gradients were not finite, int32
