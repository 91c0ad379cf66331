"""Report for `elf train --overfit N`: how many examples the model reproduces, or which component fails."""

from pathlib import Path

ENOUGH = 0.9


def report_overfit(run: Path) -> None:
    """Sample the run's training examples; print how many the model reproduces, or else the doctor's advice."""
    from elfcli.data.tokenizers import decoded
    from elfcli.diagnosis.checks import first_advice, named
    from elfcli.diagnosis.history import history_of
    from elfcli.diagnosis.measure import DoctorData, diagnose
    from elfcli.runs.examples import open_examples
    from elfcli.sampling.generate import Options, generate
    from elfcli.sampling.model import load_model
    from elfcli.sampling.settings import settings_of
    from elfcli.ui.progress import say

    model = load_model(str(run))
    examples, data = open_examples(model.config), model.config.data
    count, setting, options = len(examples), settings_of(model.config.sampling)[0], Options()
    paired = data.takes_sources
    rows = [examples.tokens[i] for i in range(count)]
    conditions = [row.get("condition_input_ids", ())[: data.max_input_length] if paired else () for row in rows]
    ids = [
        row["input_ids"][: data.max_length - len(condition)].tolist()
        for row, condition in zip(rows, conditions, strict=True)
    ]
    expected = decoded(model.tokenizer, ids, model.config.evaluation.clean_up)
    generated = generate(model, conditions, setting, options)  # type: ignore[arg-type]
    right = sum(text == real if paired else text in expected for text, real in zip(generated, expected, strict=True))
    say(f"{right} of {count} examples reproduced ({setting.name})" + ("" if right >= ENOUGH * count else ", but:"))
    if right < ENOUGH * count:
        all_data, history = DoctorData(examples, examples, False), history_of(model, count)
        checks = diagnose(model, all_data, history, options, min(count, 64))
        say(f"  {first_advice(named(checks, str(run)))}")
