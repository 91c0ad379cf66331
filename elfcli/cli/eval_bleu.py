"""`elf eval-bleu`: BLEU of generated text."""

from elfcli.cli import options as o


def eval_bleu(
    samples: o.SamplesArgument,
    references: o.ReferencesOption = None,
    reference_key: o.ReferenceKeyOption = None,
    protocol: o.BleuProtocolOption = "paper",
    json_file: o.JsonOption = None,
    overwrite: o.OverwriteOption = False,
) -> None:
    """Score generated text by BLEU (sacrebleu, lowercase, effective order)."""
    from functools import partial

    from elfcli.cli.output import score_pairs
    from elfcli.scoring.bleu import corpus_bleu
    from elfcli.scoring.protocol import check_protocol

    check_protocol(protocol, "bleu")
    score_pairs(partial(corpus_bleu, protocol=protocol), samples, references, reference_key, json_file, overwrite)
