"""Templates as sources: beginnings to continue, texts with gaps to fill, and gaps drawn from held-out texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from elfcli.config.schema import GAP_KINDS
from elfcli.corpus.files import Layout
from elfcli.data.gaps import ROOM, draw_rooms, draw_spans
from elfcli.data.plain_text import LossFinder, check_unknown, plain_encoder
from elfcli.data.templates import GapSize, Template, continuation, frame_of, parsed, template_of
from elfcli.data.tokenizers import eos_id
from elfcli.errors import InputError
from elfcli.parallel.agree import run_on_all
from elfcli.runs.examples import evaluation_examples, gap_settings
from elfcli.sampling.model import LoadedModel
from elfcli.sampling.sources import Sources, file_rows, sources_of
from elfcli.ui.progress import say

DRAWN_KINDS = GAP_KINDS[1:]
"""Kinds of gaps that held-out texts get, one after the other."""


def templates_of(texts: Sequence[str], prompts: Sequence[str], names: tuple[str, str]) -> list[Template]:
    """Return the templates of texts with gaps, then those of beginnings, which hold no gaps.

    names: of both in messages. Raises InputError for none, a text without a gap, or an empty beginning.
    """
    fill, begin = names
    for name, value in zip(names, (texts, prompts), strict=True):
        if isinstance(value, str):
            raise InputError(f"{name}: pass a list of texts, not one text")
    for prompt in prompts:
        if not prompt.strip():
            raise InputError(f"{begin}: is empty; without it a model writes freely")
    if not texts and not prompts:
        raise InputError(f"{fill}: no text to fill")
    return [*(parsed(text, f"{fill} {text[:40]!r}") for text in texts), *map(continuation, prompts)]


def sources_of_templates(
    model: LoadedModel,
    templates: Sequence[Template],
    allow_unknown: bool = False,
    rows: Sequence[dict] | None = None,
    seed: int = 0,
) -> Sources:
    """Return templates as sources. rows: of the same templates, with what else is known.

    seed: for the lengths of gaps that may have several. A model that was trained with gaps decides itself, unless the
    least length is given.
    Raises InputError if the model generates from sources, or if a template does not fit or is mostly unknown.
    """
    if model.config.data.takes_sources:
        raise InputError(f"{model.name}: generates from sources, so it cannot continue or fill; train a model of free "
                         "texts")  # fmt: skip
    if not model.config.data.gaps:
        say("not trained with gaps: the known text guides the sampling, which is approximate and takes longer")
    frames, rng = [], np.random.default_rng(seed)
    for template in templates:
        known = [text for text in template.known if text.strip()]
        losses = LossFinder(model.tokenizer).losses(known, plain_encoder(model.tokenizer)(known), checked=0)
        check_unknown(losses, f"template {str(template)[:40]!r}", "use words of the training texts", allow_unknown)
        sized = with_lengths(template, rng, decides=bool(model.config.data.gaps))
        frames.append(frame_of(model.tokenizer, sized, eos_id(model.tokenizer)))
        needed, most = len(frames[-1].ids) + template.open_end, model.config.data.max_length
        if needed > most:
            raise InputError(f"template {str(template)[:40]!r}: is {needed} tokens long with room for its gaps, but "
                             f"max_length is {most}: shorten it, or give its gaps less room ([..4])")  # fmt: skip
    marked = [{"template": str(template)} for template in templates]
    before = [{"id": place} for place in range(len(templates))] if rows is None else rows
    described = [{**row, **one} for row, one in zip(before, marked, strict=True)]
    return Sources([frame.ids.tolist() for frame in frames], described, list(templates), frames)


def with_lengths(template: Template, rng: np.random.Generator, decides: bool) -> Template:
    """Return a template whose gaps have one length each, drawn from those that they may have, except an open last one.

    decides: leave gaps as they are whose length the model may decide.
    """
    sizes = list(template.sizes)
    for place, size in enumerate(sizes[: len(sizes) - template.open_end]):
        if size.least or not decides:
            length = int(rng.integers(max(size.least, 1), (size.most or ROOM) + 1))
            sizes[place] = GapSize(length, length)
    return template._replace(sizes=tuple(sizes))


def templates_of_file(
    model: LoadedModel, path: str, key: str, count: int | None, layout: Layout, allow_unknown: bool, seed: int
) -> Sources:
    """Return the templates in a column of the first `count` lines of a file, with their references."""
    rows = file_rows(path, [key], "template", count, layout)
    templates = [parsed(row.pop("input"), f"{path}: template {place}") for place, row in enumerate(rows, 1)]
    return sources_of_templates(model, templates, allow_unknown, rows, seed)


def evaluation_sources(model: LoadedModel, data: str | None = None, count: int | None = None) -> Sources:
    """Return what a model is evaluated on: if its metrics score gaps, held-out texts with gaps."""
    if model.config.evaluates_gaps:
        return run_on_all(lambda: gap_sources(model, data, count or model.config.evaluation.num_samples))
    return sources_of(model, data, count)


def gap_sources(model: LoadedModel, data: str | None, count: int) -> Sources:
    """Return the first `count` held-out texts with gaps of each kind in turn, drawn by the text's number.

    So is their room, as in training: a model that was trained with gaps gets the length of the gaps of some texts, and
    a limit that tells little of it in others. Other models always get the length. The rows have the whole text as
    `reference`, the gaps' texts as `reference_gaps`, and their `kind`.
    """
    examples, clean_up = evaluation_examples(model.config, data), model.config.evaluation.clean_up
    trained, longest = model.config.data.gaps, gap_settings(model.config, eos_id(model.tokenizer)).longest
    templates, rows = [], list[dict[str, Any]]()
    for number in range(min(count, len(examples))):
        ids, kind = examples.tokens[number]["input_ids"][:longest], DRAWN_KINDS[number % len(DRAWN_KINDS)]
        rng = np.random.default_rng(number)
        spans = draw_spans(len(ids), kind, rng)
        if not spans:  # an empty text
            continue
        rooms = draw_rooms(spans, rng) if trained else [0] * len(spans)
        real = [max(stop - start, int(not trained)) for start, stop in spans]
        sizes = [GapSize(0, length + room - 1) if room else GapSize(length, length)
                 for length, room in zip(real, rooms, strict=True)]  # fmt: skip
        sizes = [GapSize()] if kind == "prefix" else sizes
        template, gaps = template_of(model.tokenizer, ids, spans, sizes, clean_up)
        templates.append(template)
        rows.append({"id": number, "kind": kind, "reference": template.filled(gaps), "reference_gaps": gaps})
    return sources_of_templates(model, templates, allow_unknown=True, rows=rows)
