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
    from elfcli.cli.evaluate import show_report
    from elfcli.evaluation.meta import read_meta
    from elfcli.evaluation.protocol import check_protocol
    from elfcli.evaluation.report import Texts, reports
    from elfcli.evaluation.rouge import rouge
    from elfcli.evaluation.samples import read_pairs
    from elfcli.outputs import check_output_file, write_result

    check_protocol(protocol, "rouge")
    check_output_file(json_file, overwrite, "--json")
    generated, real = read_pairs(samples, references, reference_key)
    found = rouge(generated, real).as_dict()
    (score,) = reports([found], Texts(generated, real, real, read_meta(samples)))
    write_result(json_file, score, overwrite)
    show_report([("generated", [score])])
