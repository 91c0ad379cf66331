"""`elf eval-bleu`: BLEU of generated text."""

import typer

from elfcli.cli import options as o


def eval_bleu(
    samples: o.SamplesArgument,
    references: o.ReferencesOption = None,
    reference_key: o.ReferenceKeyOption = None,
    json_file: o.JsonOption = None,
    overwrite: o.OverwriteOption = False,
) -> None:
    """Score generated text by BLEU (sacrebleu, lowercase, effective order)."""
    from elfcli.evaluation.bleu import corpus_bleu
    from elfcli.evaluation.samples import read_pairs
    from elfcli.outputs import check_output_file, write_result
    from elfcli.ui.table import table

    check_output_file(json_file, overwrite, "--json")
    result = corpus_bleu(*read_pairs(samples, references, reference_key))
    write_result(json_file, result.as_dict(), overwrite)
    typer.echo(table([("BLEU", result.bleu)], result.num_samples, result.signature))
