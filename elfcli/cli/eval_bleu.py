"""`elf eval-bleu`: BLEU of generated text."""

from pathlib import Path
from typing import Annotated

import typer

from elfcli.cli.options import JsonOption, OverwriteOption

SamplesArgument = Annotated[
    Path, typer.Argument(metavar="F.jsonl", help="Samples: `id`, `generated`, and `reference` where there is one.")
]
ReferencesOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="References, by id or line order: JSONL (`reference`, `output`) or text lines."),
]


def eval_bleu(
    samples: SamplesArgument,
    references: ReferencesOption = None,
    json_file: JsonOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Score generated text by BLEU (sacrebleu, lowercase, effective order)."""
    from elfcli.evaluation.bleu import corpus_bleu
    from elfcli.evaluation.samples import read_pairs
    from elfcli.outputs import check_output_file, write_result
    from elfcli.ui.table import table

    check_output_file(json_file, overwrite, "--json")
    result = corpus_bleu(*read_pairs(samples, references))
    if json_file is not None:
        write_result(json_file, result.as_dict(), overwrite)
    typer.echo(table([("BLEU", result.bleu)], result.num_samples, result.signature))
