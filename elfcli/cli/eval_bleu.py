"""`elf eval-bleu`: BLEU of generated text."""

from elfcli.cli import options as o


def eval_bleu(
    samples: o.SamplesArgument,
    references: o.ReferencesOption = None,
    reference_key: o.ReferenceKeyOption = None,
    protocol: o.BleuProtocolOption = "auto",
    tokenizer: o.TokenizerOption = None,
    json_file: o.JsonOption = None,
    overwrite: o.OverwriteOption = False,
) -> None:
    """Score generated text by BLEU (sacrebleu, lowercase, effective order), with chrF.

    Example: elf eval-bleu samples.jsonl --references test.csv --reference-key en
    """
    from elfcli.cli.output import score_pairs

    score_pairs("bleu", samples, references, reference_key, protocol, json_file, overwrite, tokenizer)
