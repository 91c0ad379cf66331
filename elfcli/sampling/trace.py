"""The denoising made visible: what the decoder would read at chosen times, while texts are sampled.

The loop of `sampler.solve` is run in stretches, from one recorded step to the next, by the same step function; each
record costs one decode. Shapes: B batch, S sequence, T recorded times of a sample, M times of the longest setting.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from elfcli.data.tokenizers import eos_id, pad_id
from elfcli.flow import sampler
from elfcli.models.layers import map_position_chunks
from elfcli.sampling.candidates import most_alike
from elfcli.sampling.generate import (
    Options,
    Part,
    SamplerArrays,
    SamplerStatics,
    candidates_of,
    decode_texts,
    encode_condition,
    everywhere,
    flow_of,
    lengths,
    program_of,
    sampling_batches,
    step_of,
)
from elfcli.sampling.model import LoadedModel
from elfcli.sampling.settings import SamplingSetting
from elfcli.sampling.sources import Sources

MAX_TIMES = 32
"""Recorded times of a sample, besides the start."""


@dataclass
class Trace:
    """One sample on its way. times: T numbers from 0 to 1, its own grid. rows: at each of them the tokens that the
    decoder reads, up to its first end of text, as (piece, confidence in per cent). row: of the samples file."""

    row: dict
    times: list[float] = field(default_factory=list)
    rows: list[list[tuple[str, int]]] = field(default_factory=list)

    def settled(self) -> list[int]:
        """Of each token of the finished text the first recorded time from which on it stays."""
        found = []
        for place, (piece, _) in enumerate(self.rows[-1]):
            at = len(self.rows) - 1
            while at and place < len(self.rows[at - 1]) and self.rows[at - 1][place][0] == piece:
                at -= 1
            found.append(at)
        return found


def recorded_steps(num_steps: int, most: int = MAX_TIMES) -> list[int]:
    """0, then evenly spread numbers of steps that are done, the last one included."""
    return sorted({round(i * num_steps / min(most, num_steps)) for i in range(min(most, num_steps) + 1)})


@partial(jax.jit, static_argnums=0)
def begin(program: SamplerStatics, inputs: SamplerArrays):
    """(condition, state before the first step, grid (B, M))."""
    with jax.sharding.use_abstract_mesh(program.mesh.abstract_mesh):
        condition = encode_condition(program, inputs)
        _, _, noise_at, grid_BxM = flow_of(program, inputs, condition)
        return condition, sampler.initial(noise_at(-1), condition), everywhere(program, grid_BxM)


@partial(jax.jit, static_argnums=0)
def advance(program: SamplerStatics, inputs: SamplerArrays, condition: sampler.Condition, state, steps):
    """(state, tokens read from it (B, S), their probabilities (B, S)) after the steps from `steps[0]` to `steps[1]`."""
    with jax.sharding.use_abstract_mesh(program.mesh.abstract_mesh):
        flow = flow_of(program, inputs, condition)
        step = step_of(program, inputs, condition, flow)
        state = jax.lax.fori_loop(steps[0], steps[1], step, state)

        def read(features):
            logits = flow.model.logits(features)
            sure = jnp.exp(jnp.max(jax.nn.log_softmax(logits), axis=-1))
            return jnp.stack([jnp.argmax(logits, axis=-1).astype(jnp.float32), sure], axis=-1)  # ids below 2^24

        features = sampler.decode_features(flow.model, state.z_BxSxE, condition, inputs.guidance)
        both = map_position_chunks(read, program.shape.vocab_size, features)
        return state, *everywhere(program, (both[..., 0].astype(jnp.int32), both[..., 1]))


def traced(
    model: LoadedModel,
    sources: Sources,
    setting: SamplingSetting,
    options: Options = Options(),
    update: Callable[[list[Trace], int], None] = lambda traces, done: None,
) -> list[Trace]:
    """A trace of each sample; its row gets the text under `generated`. The texts are those of `generate`.

    update(traces of the batch so far, texts done) after each record.
    """
    program, found = program_of(model, setting, options), []
    for part in sampling_batches(model, sources.conditions, setting, options):
        rows = sources.rows[part.first : part.first + part.wanted]
        tries = candidates_of(part, setting, options)
        drawn = [traced_batch(model, program, rows, one, update) for one in tries]
        kept = [of_one[most_alike([trace.row["generated"] for trace in of_one])] for of_one in zip(*drawn, strict=True)]
        found += kept
        update(kept, part.first + part.wanted)
    return found


def traced_batch(
    model: LoadedModel, program: SamplerStatics, rows: Sequence[dict], part: Part, update: Callable
) -> list[Trace]:
    """The traces of one batch. update(traces so far, texts done) after each record."""
    traces, marks = [Trace(dict(row)) for row in rows], recorded_steps(int(part.inputs.num_steps))
    condition, state, grid_BxM = begin(program, part.inputs)
    for before, mark in zip([0, *marks], marks, strict=False):
        state, *read = advance(program, part.inputs, condition, state, np.asarray([before, mark], np.int32))
        tokens_BxS, sure_BxS = map(np.asarray, read)
        record(model, part, traces, np.asarray(grid_BxM)[:, mark], (tokens_BxS, sure_BxS))
        update(traces, part.first)
    for trace, text in zip(traces, decode_texts(model, tokens_BxS, part), strict=True):
        trace.row = {"id": trace.row["id"], "generated": text} | trace.row
    return traces


def record(model: LoadedModel, part: Part, traces: list[Trace], times_B: np.ndarray, read: tuple) -> None:
    """Adds what was read at a time to the traces."""
    tokens_BxS, sure_BxS = read
    config, eos, pads = lengths(model.config), eos_id(model.tokenizer), pad_id(model.tokenizer)
    longest = config["max_length"] - config["max_input_length"]
    for b, trace in enumerate(traces):
        start, row = int(part.shift_B[b]), []
        text = slice(start, start + longest)
        for token, sure in zip(tokens_BxS[b, text].tolist(), sure_BxS[b, text].tolist(), strict=True):
            if token == eos:
                break
            if token != pads:
                row.append((piece_of(model.tokenizer, token), round(100 * sure)))
        trace.times.append(round(float(times_B[b]), 4))
        trace.rows.append(row)


def piece_of(tokenizer, token: int) -> str:
    """A token as text, with the space before it where there is one."""
    return str(tokenizer.convert_ids_to_tokens(token)).replace("\u2581", " ")


def page_data(model: LoadedModel, setting: SamplingSetting, traces: Sequence[Trace]) -> dict:
    """What the page shows, as JSON: pieces by number, and of each sample times, pieces and per cent."""
    numbers: dict[str, int] = {}
    samples = []
    for trace in traces:
        rows = [[[numbers.setdefault(piece, len(numbers)), sure] for piece, sure in row] for row in trace.rows]
        texts = {name: trace.row[name] for name in ("id", "input", "reference", "generated") if name in trace.row}
        samples.append(texts | {"times": trace.times, "rows": rows, "settled": trace.settled()})
    made = f"{model.name}, step {model.step}"
    return {"made": made, "setting": setting.name, "pieces": list(numbers), "samples": samples}
