"""Report for `elf train --overfit N`: how many examples the model reproduces, or which component fails."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elfcli.data.folder import Examples
    from elfcli.sampling.model import LoadedModel

ENOUGH = 0.9


def report_overfit(run: Path) -> None:
    """Sample the run's training examples; print how many the model reproduces, or else the doctor's advice."""
    from elfcli.diagnosis.checks import first_advice, named
    from elfcli.diagnosis.history import history_of
    from elfcli.diagnosis.measure import DoctorData, diagnose
    from elfcli.runs.examples import open_examples
    from elfcli.sampling.generate import Options, generate
    from elfcli.sampling.model import load_model
    from elfcli.sampling.settings import settings_of
    from elfcli.ui.progress import say

    model = load_model(str(run))
    examples = open_examples(model.config)
    count, setting, options = len(examples), settings_of(model.config.sampling)[0], Options()
    conditions, texts = expected_texts(model, examples)
    found = list(generate(model, conditions, setting, options))
    paired = model.config.data.max_input_length > 0
    right = sum(text == real if paired else text in texts for text, real in zip(found, texts, strict=True))
    say(f"{right} of {count} examples reproduced ({setting.name})" + ("" if right >= ENOUGH * count else ", but:"))
    if right < ENOUGH * count:
        rows = diagnose(model, DoctorData(examples, examples, False), history_of(model, count), options, min(count, 64))
        say(f"  {first_advice(named(rows, str(run)))}")


def expected_texts(model: "LoadedModel", examples: "Examples") -> tuple[list, list[str]]:
    """Return the examples' conditions, and their texts as the model would write them."""
    from elfcli.data.tokenizers import decoded

    data, conditions, rows = model.config.data, [], []
    for i in range(len(examples)):
        tokens = examples.tokens[i]
        conditions.append(
            tokens.get("condition_input_ids", ())[: data.max_input_length] if data.max_input_length else ()
        )
        rows.append(tokens["input_ids"][: data.max_length - len(conditions[-1])].tolist())
    return conditions, decoded(model.tokenizer, rows, model.config.evaluation.clean_up)
