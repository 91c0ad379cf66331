"""The end of `elf train --overfit N`: how many of the examples were learnt by heart, or which part could not."""

from pathlib import Path

ENOUGH = 0.9


def tell_overfit(run: Path) -> None:
    """Samples the run's training examples and says how many come out as they are; else the doctor's advice."""
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
    conditions, texts = wanted(model, examples)
    found = list(generate(model, conditions, setting, options))
    paired = model.config.data.max_input_length > 0
    right = sum(text == real if paired else text in texts for text, real in zip(found, texts, strict=True))
    say(f"{right} of {count} examples learnt by heart ({setting.name})" + ("" if right >= ENOUGH * count else ", but:"))
    if right < ENOUGH * count:
        rows = diagnose(model, DoctorData(examples, examples, False), history_of(model, count), options, min(count, 64))
        say(f"  {first_advice(named(rows, str(run)))}")


def wanted(model, examples) -> tuple[list, list[str]]:
    """(conditions, texts as the model would write them) of the examples."""
    from elfcli.data.tokenizers import decoded

    data, conditions, rows = model.config.data, [], []
    for i in range(len(examples)):
        tokens = examples.tokens[i]
        conditions.append(
            tokens.get("condition_input_ids", ())[: data.max_input_length] if data.max_input_length else ()
        )
        rows.append(tokens["input_ids"][: data.max_length - len(conditions[-1])].tolist())
    return conditions, decoded(model.tokenizer, rows, model.config.evaluation.clean_up)
