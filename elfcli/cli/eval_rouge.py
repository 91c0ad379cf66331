"""`elf eval-rouge`: ROUGE of generated text."""

from elfcli.cli import options as o


def eval_rouge(
    samples: o.SamplesArgument,
    references: o.ReferencesOption = None,
    reference_key: o.ReferenceKeyOption = None,
    protocol: o.RougeProtocolOption = "auto",
    json_file: o.JsonOption = None,
    overwrite: o.OverwriteOption = False,
) -> None:
    """Score generated text by ROUGE-1, 2 and L (rouge_score with stemmer, mean F1).

    Example: elf eval-rouge samples.jsonl --json rouge.json
    """
    from elfcli.cli.output import score_pairs

    score_pairs("rouge", samples, references, reference_key, protocol, json_file, overwrite)
