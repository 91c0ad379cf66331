"""The model card: metadata that the Hub reads, figures with their protocol, how to sample, the training recipe."""

import json
from pathlib import Path

import numpy as np
import yaml

from elfcli.config.schema import Config
from elfcli.hub.reference import flatten
from elfcli.hub.sources import Source, preset_of

METRICS = {"bleu": "BLEU", "rouge": "ROUGE-L", "ppl": "Generative perplexity"}
PROTOCOLS = {
    "bleu": "sacrebleu corpus BLEU, lowercase, effective order",
    "rouge": "rouge_score with stemmer, mean F1 x 100",
    "ppl": "texts re-tokenised for GPT-2, next-token NLL pooled over samples, empty samples skipped",
}
DETAILS = ("signature", "rouge1", "rouge2", "entropy", "model", "max_length", "num_skipped_empty")
"""What of a score says how it was taken, beside its value."""
CITATION = """@article{hu2026elf,
  title   = {ELF: Embedded Language Flows},
  author  = {Hu and others},
  journal = {arXiv preprint arXiv:2605.10938},
  year    = {2026}
}"""


def model_card(source: Source, config: Config, name: str, license_name: str) -> str:
    """README.md for weights and portable settings; `name` is what others will sample from."""
    results = evaluation_results(source)
    metadata = yaml.safe_dump(card_metadata(config, name, license_name, results), sort_keys=False, allow_unicode=True)
    parts = [f"---\n{metadata}---\n\n# {name}", introduction(source), *figures(results, config)]
    parts += [usage(config, name), recipe(config), f"## Citation\n\n```bibtex\n{CITATION}\n```"]
    return "\n\n".join(parts) + "\n"


def evaluation_results(source: Source) -> list[dict]:
    """What `elf eval` measured of these weights: entries of RUN/eval/*/results.json of their step."""
    if source.kind != "run" or source.folder is None or not source.ema:
        return []
    found = []
    for file in sorted((source.folder / "eval").glob("*/results.json")):
        try:
            entries = json.loads(file.read_text(encoding="utf-8"))
            found += [entry for entry in entries if entry["step"] == source.step and entry["scores"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a file that is not of `elf eval` says nothing of this model
    return found


def task_type(config: Config) -> str:
    """The Hub's name for what the model does."""
    if not config.data.max_input_length:
        return "text-generation"
    return "translation" if "bleu" in config.evaluation.metrics else "summarization"


def card_metadata(config: Config, name: str, license_name: str, results: list[dict]) -> dict:
    """The card's YAML header as plain data, with results in the `model-index` form."""
    data = config.data
    metadata: dict = {
        "license": license_name,
        "library_name": "elfcli",
        "pipeline_tag": task_type(config),
        "tags": ["elf", "embedded-language-flows", "diffusion-language-model", "flow-matching", "jax"],
    }
    if data.data_path and "/" in data.data_path:
        metadata["datasets"] = [data.data_path]
    if results:
        index = [model_index_entry(config, result) for result in results]
        metadata["model-index"] = [{"name": name, "results": index}]
    return metadata


def model_index_entry(config: Config, result: dict) -> dict:
    """One evaluation in the form that the Hub reads."""
    dataset = config.data.eval_data_path or config.data.data_path or config.data.task or "unknown"
    metrics = [
        {
            "type": "perplexity" if score["metric"] == "ppl" else score["metric"],
            "name": f"{METRICS.get(score['metric'], score['metric'])} ({setting_text(result['setting'])})",
            "value": round(float(score["value"]), 4),
            "args": {"num_samples": result["num_samples"], "seed": result["seed"], **result["setting"]},
        }
        for score in result["scores"]
        if score["value"] is not None
    ]
    return {
        "task": {"type": task_type(config)},
        "dataset": {"name": dataset, "type": dataset, "split": "validation"},
        "metrics": metrics,
    }


def setting_text(setting: dict) -> str:
    """One way of sampling in words: `sde 32 steps, gamma 1.5, CFG 1, w 3`."""
    gamma = f", gamma {setting['gamma']:g}" if setting["sampler"] == "sde" else ""
    return f"{setting['sampler'].upper()} {setting['steps']} steps{gamma}, CFG {setting['cfg']:g}, w {setting['w']:g}"


def introduction(source: Source) -> str:
    count = sum(int(np.prod(leaf.shape)) for leaf in flatten(source.params).values())
    shape = source.shape
    preset = preset_of(shape)
    return (
        "A continuous diffusion language model (Embedded Language Flows), trained with `elf`.\n\n"
        f"- {count / 1e6:.1f}M parameters{f' ({preset})' if preset else ''}: depth "
        f"{shape.depth}, width {shape.hidden_size}, {shape.num_heads} heads, vocabulary {shape.vocab_size}\n"
        f"- {'EMA' if source.ema else 'Raw'} weights of step {source.step}, float32"
    )


def figures(results: list[dict], config: Config) -> list[str]:
    """The table of measured figures with the protocol of each; nothing where nothing was measured."""
    if not results:
        return []
    where = config.data.eval_data_path or f"the held-out part of {config.data.data_path or 'the training data'}"
    lines = [
        "## Figures",
        "",
        f"Measured with `elf eval` on {where if config.data.max_input_length else 'samples'}.",
        "",
    ]
    lines += ["| metric | value | sampling | samples | seed | protocol |", "|---|---|---|---|---|---|"]
    for result in results:
        for score in result["scores"]:
            metric = score["metric"]
            details = "; ".join(f"{k} {plain(score[k])}" for k in DETAILS if k in score)
            protocol = "; ".join(text for text in (PROTOCOLS.get(metric, ""), details) if text)
            lines.append(
                f"| {METRICS.get(metric, metric)} | {score['value']:.2f} | {setting_text(result['setting'])} "
                f"| {result['num_samples']} | {result['seed']} | {protocol.replace('|', ' ')} |"
            )
    return ["\n".join(lines)]


def plain(value) -> str:
    """A detail for the table: short numbers, names without folders."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else str(value)


def usage(config: Config, name: str) -> str:
    given = "--input sources.jsonl" if config.data.max_input_length else "--num-samples 8"
    note = '\n\nEach line of `sources.jsonl` is `{"input": "..."}`.' if config.data.max_input_length else ""
    return f"## How to sample\n\n```\npip install elfcli\nelf sample --checkpoint {name} {given}\n```{note}"


def recipe(config: Config) -> str:
    """Training data and the settings that decide the result; config.toml has the rest."""
    data, encoder, training, optimization = config.data, config.encoder, config.training, config.optimization
    length = f"{training.steps} steps" if training.steps else f"{training.epochs:g} epochs"
    rate = f"lr {optimization.lr:g}" if optimization.lr else f"blr {optimization.blr:g} per 256 examples"
    rows = {
        "task": data.task or "-",
        "training data": data.data_path or "-",
        "sequence length": f"{data.max_length} tokens, of which at most {data.max_input_length} condition",
        "encoder": encoder.encoder_model_name
        + (f" (width {encoder.embedding_dim})" if encoder.encoder_model_name == "embedding" else ""),
        "latents": f"mean {encoder.latent_mean}, standard deviation {encoder.latent_std}",
        "length": f"{length}, batch {config.global_batch}, accumulation {optimization.grad_accum_steps}",
        "optimiser": f"{optimization.optimizer}, {rate}, {optimization.lr_schedule}, EMA {optimization.ema_decay1:g}",
        "noise scales": f"{config.objective.denoiser_noise_scale:g} denoiser, "
        f"{config.objective.decoder_noise_scale:g} decoder",
        "condition dropped": f"{config.objective.label_drop_prob:g}",
        "seed": str(training.seed),
    }
    lines = ["## Training data and recipe", "", "| setting | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join([*lines, "", "`config.toml` holds every setting, `sampling.yaml` the sampling presets."])
