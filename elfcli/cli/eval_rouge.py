"""`elf eval-rouge`: ROUGE of generated text."""

from elfcli.cli import options as o


def eval_rouge(
    samples: o.SamplesArgument,
    references: o.ReferencesOption = None,
    reference_key: o.ReferenceKeyOption = None,
    protocol: o.ProtocolOption = "paper",
    json_file: o.JsonOption = None,
    overwrite: o.OverwriteOption = False,
) -> None:
    """Score generated text by ROUGE-1, 2 and L (rouge_score with stemmer, mean F1)."""
    from elfcli.cli.output import score_pairs
    from elfcli.scoring.protocol import check_protocol
    from elfcli.scoring.rouge import rouge

    check_protocol(protocol, "rouge")
    score_pairs(rouge, samples, references, reference_key, json_file, overwrite)
