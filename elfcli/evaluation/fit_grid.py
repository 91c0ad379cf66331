"""A grid of times fitted to a network, without training: equal parts of how far its estimate moves.

A step takes the estimate as constant (Euler's, `flow/sampler.py`), so that it is wrong by as much as the estimate moves
meanwhile. The movement is measured along the model's own way from noise to text.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from elfcli.flow import sampler
from elfcli.sampling.generate import Inputs, Options, Program, encoded, everywhere, flow_of, parts, program_of
from elfcli.sampling.model import Model
from elfcli.sampling.settings import Setting
from elfcli.sampling.sources import first_sources

STEPS = 64
QUANTILES = 33


def fitted_grid(model: Model, setting: Setting, options: Options, num_texts: int) -> list[float]:
    """Times at the even shares 0, 1/32, ..., 1 of the steps. setting: its guidance is used, its steps are not."""
    even = Setting("ode", STEPS, setting.cfg, setting.self_cond_cfg_scale, "uniform")
    program, changes = program_of(model, even, options), []
    for part in parts(model, first_sources(model, num_texts).conditions, even, options):
        changes.append(np.asarray(squared_changes(program, part.inputs))[: part.wanted])
    return quantiles(np.sqrt(np.concatenate(changes).mean(axis=0)))


@partial(jax.jit, static_argnums=0)
def squared_changes(program: Program, inputs: Inputs):
    """(B, STEPS): mean square over text and width of how far each step's estimate lies from the one before."""
    with jax.sharding.use_abstract_mesh(program.mesh.abstract_mesh):
        condition = encoded(program, inputs)
        flow = flow_of(program, inputs, condition)
        step = sampler.euler(flow.predict, condition, flow.grid_BxM, flow.noise_at, 0.0)
        text_BxS = ~condition.mask_BxS

        def body(state, i):
            after = step(i, state)
            squares_BxS = jnp.mean((after.estimate_BxSxE - state.estimate_BxSxE) ** 2, axis=-1)
            return after, jnp.sum(squares_BxS * text_BxS, axis=1) / jnp.maximum(text_BxS.sum(axis=1), 1)

        changes = jax.lax.scan(body, sampler.initial(flow.noise_at(-1), condition), jnp.arange(STEPS))[1]
        return everywhere(program, changes.T)


def quantiles(moved_M: np.ndarray) -> list[float]:
    """The grid for movements (M,) of the estimate over the steps into times 0, 1/M, ..., (M-1)/M.

    The first two are left out, for there the estimate settles on itself, whatever the time.
    """
    count = len(moved_M)
    into = np.concatenate([[moved_M[2]], moved_M[2:], moved_M[-1:]])  # over the steps out of 0, 1/M, ...
    share = np.concatenate([[0.0], np.cumsum(into + 1e-9)]) / (into + 1e-9).sum()
    times = np.interp(np.linspace(0, 1, QUANTILES), share, np.arange(count + 1) / count)
    return [0.0, *(float(f"{time:.5f}") for time in times[1:-1]), 1.0]
