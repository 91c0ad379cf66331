"""`elf eval-rouge`: ROUGE of generated text."""

import typer

from elfcli.cli import options as o


def eval_rouge(
    samples: o.SamplesArgument,
    references: o.ReferencesOption = None,
    reference_key: o.ReferenceKeyOption = None,
    json_file: o.JsonOption = None,
    overwrite: o.OverwriteOption = False,
) -> None:
    """Score generated text by ROUGE-1, 2 and L (rouge_score with stemmer, mean F1)."""
    from elfcli.evaluation.rouge import rouge
    from elfcli.evaluation.samples import read_pairs
    from elfcli.outputs import check_output_file, write_result
    from elfcli.ui.table import table

    check_output_file(json_file, overwrite, "--json")
    result = rouge(*read_pairs(samples, references, reference_key))
    write_result(json_file, result.as_dict(), overwrite)
    rows = [("ROUGE-1", result.rouge1), ("ROUGE-2", result.rouge2), ("ROUGE-L", result.rougeL)]
    typer.echo(table(rows, result.num_samples, result.signature))
