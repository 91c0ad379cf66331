"""A denoising trace: what the decoder reads from the latents at recorded times while texts are sampled.

The loop of `sampler.integrate` runs in stretches from one recorded step to the next, with the same step function; each
record costs one decode. Shapes: B batch, S sequence, T recorded times of a sample, M times of the longest setting.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elfcli.data.tokenizers import begins_with_eos, eos_id, pad_id
from elfcli.flow import sampler
from elfcli.models.layers import map_position_chunks
from elfcli.parallel.mesh import everywhere, jit_on_mesh
from elfcli.sampling import generate as g
from elfcli.sampling.candidates import choice_of
from elfcli.sampling.generate import Options, Part, SamplerArrays, SamplerStatics
from elfcli.sampling.model import LoadedModel
from elfcli.sampling.settings import SamplingSetting
from elfcli.sampling.sources import Sources

MAX_TIMES = 32
"""Recorded times of a sample, besides the start."""


@dataclass
class Trace:
    """Trace of one sample. times: T numbers from 0 to 1, of its own grid. row: as in the samples file.

    rows: at each time the tokens that the decoder reads, up to the first end of text, as (piece, confidence in %).
    """

    row: dict
    times: list[float] = field(default_factory=list)
    rows: list[list[tuple[str, int]]] = field(default_factory=list)

    def settled(self) -> list[int]:
        """Return, for each token of the finished text, the index of the first time after which it does not change."""
        indices = []
        for place, (piece, _) in enumerate(self.rows[-1]):
            at = len(self.rows) - 1
            while at and place < len(self.rows[at - 1]) and self.rows[at - 1][place][0] == piece:
                at -= 1
            indices.append(at)
        return indices


def recorded_steps(num_steps: int, most: int = MAX_TIMES) -> list[int]:
    """Return 0, then evenly spread numbers of completed steps, including the last."""
    return sorted({round(i * num_steps / min(most, num_steps)) for i in range(min(most, num_steps) + 1)})


@jit_on_mesh
def begin(program: SamplerStatics, inputs: SamplerArrays) -> tuple[sampler.Condition, sampler.State, Array]:
    """Return (condition, state before the first step, grid (B, M))."""
    condition = g.encode_condition(program, inputs)
    flow = g.flow_of(program, inputs, condition)
    return condition, sampler.initial(flow.noise_at(-1), flow.condition), everywhere(program, flow.grid_BxM)


@jit_on_mesh
def advance(
    program: SamplerStatics, inputs: SamplerArrays, condition: sampler.Condition, state: sampler.State, steps: Array
) -> tuple[sampler.State, Array, Array]:
    """Return (state, tokens read from it (B, S), their probabilities (B, S)) after steps `steps[0]` to `steps[1]`."""
    flow = g.flow_of(program, inputs, condition)
    state = jax.lax.fori_loop(steps[0], steps[1], g.step_of(program, inputs, flow), state)

    def read(features: Array) -> Array:
        logits = flow.model.logits(features)
        probability = jnp.exp(jnp.max(jax.nn.log_softmax(logits), axis=-1))
        return jnp.stack([jnp.argmax(logits, axis=-1).astype(jnp.float32), probability], axis=-1)  # ids below 2^24

    features = sampler.decode_features(flow.model, state.z_BxSxE, flow.condition, inputs.guidance)
    both = map_position_chunks(read, program.shape.vocab_size, features)
    return state, *everywhere(program, (both[..., 0].astype(jnp.int32), both[..., 1]))


def traced(
    model: LoadedModel,
    sources: Sources,
    setting: SamplingSetting,
    options: Options = Options(),
    update: Callable[[list[Trace], int], None] = lambda traces, done: None,
) -> list[Trace]:
    """Return the trace of each sample, with its text, the one of `generate`, under `generated` in its row.

    update(traces of the batch so far, texts done): called after each record.
    """
    program, traces = g.program_of(model, setting, options, sources), []
    choose = choice_of(model, setting, sources)
    for part in g.sampling_batches(model, sources, setting, options):
        batches = [traced_batch(model, program, one, update) for one in g.candidates_of(part, setting, options)]
        best = [drawn[choose([trace.row["generated"] for trace in drawn])] for drawn in zip(*batches, strict=True)]
        traces += best
        update(best, part.first + len(best))
    return traces


def traced_batch(model: LoadedModel, program: SamplerStatics, part: Part, update: Callable) -> list[Trace]:
    """Return the traces of one batch. update: as of `traced`."""
    traces, marks = [Trace(dict(row)) for row in part.sources.rows], recorded_steps(int(part.inputs.num_steps))
    condition, state, grid = begin(program, part.inputs)
    grid_BxM = np.asarray(grid)
    for before, mark in zip([0, *marks], marks, strict=False):
        state, *read = advance(program, part.inputs, condition, state, np.asarray([before, mark], np.int32))
        tokens_BxS, probabilities_BxS = map(np.asarray, read)
        for b, trace in enumerate(traces):
            trace.times.append(round(float(grid_BxM[b, mark]), 4))
            trace.rows.append(pieces_of(model, part, b, tokens_BxS[b], probabilities_BxS[b]))
        update(traces, part.first)
    for trace, output in zip(traces, g.decoded_rows(model, tokens_BxS, part), strict=True):
        trace.row = {"id": trace.row["id"]} | output | trace.row
    return traces


def pieces_of(
    model: LoadedModel, part: Part, b: int, tokens_S: np.ndarray, probabilities_S: np.ndarray
) -> list[tuple[str, int]]:
    """Return (piece, confidence in %) of sample b's tokens, without its source, up to its end.

    The known text of a template is sure. Padding in its gaps is an empty piece, so that all pieces keep their places.
    """
    data, length = model.config.data, 0
    eos, pad, begins = eos_id(model.tokenizer), pad_id(model.tokenizer), begins_with_eos(model.tokenizer)
    start, stop = int(part.shift_B[b]), len(tokens_S)
    if data.takes_sources:
        stop = start + data.max_length - data.max_input_length
    if part.sources.frames:
        frame = part.sources.frames[b]
        length, known = len(frame.ids), frame.example()["known"][:-1]
        tokens_S = np.append(np.where(known, frame.ids, tokens_S[:length]), tokens_S[length:])
        probabilities_S = np.append(np.where(known, 1.0, probabilities_S[:length]), probabilities_S[length:])
        start, stop = 0, stop if frame.open_end else length
    pieces: list[tuple[str, int]] = []
    for place, token in enumerate(tokens_S[start:stop].tolist()):
        if token == eos and place >= length and (pieces or not begins):
            break
        piece = "" if token in (eos, pad) else str(model.tokenizer.convert_ids_to_tokens(token)).replace("\u2581", " ")
        if piece or place < length:
            pieces.append((piece, round(100 * float(probabilities_S[start + place]))))
    return pieces


def page_data(model: LoadedModel, setting: SamplingSetting, traces: Sequence[Trace]) -> dict[str, Any]:
    """Return the page's data as JSON: pieces by number, and the times, pieces and confidences of each sample."""
    numbers: dict[str, int] = {}
    samples = []
    for trace in traces:
        rows = [[[numbers.setdefault(piece, len(numbers)), percent] for piece, percent in row] for row in trace.rows]
        texts = {
            name: trace.row[name] for name in ("id", "input", "template", "reference", "generated") if name in trace.row
        }
        samples.append(texts | {"times": trace.times, "rows": rows, "settled": trace.settled()})
    made = f"{model.name}, step {model.step}"
    return {"made": made, "setting": setting.name, "pieces": list(numbers), "samples": samples}
