"""Writes the model card: metadata for the Hub, figures with their protocol, how to sample, the training recipe."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from elfcli import scoring
from elfcli.config.schema import Config
from elfcli.models.elf import num_params
from elfcli.weights.settings import preset_of
from elfcli.weights.source import Source

DETAILS = ("signature", "rouge1", "rouge2", "entropy", "model", "max_length", "num_skipped_empty")
"""Entries of a score that describe how it was measured."""
CITATION = """@article{hu2026elf,
  title   = {ELF: Embedded Language Flows},
  author  = {Hu and Qiu and Lu and Zhao and Li and Kim and Andreas and He},
  journal = {arXiv preprint arXiv:2605.10938},
  year    = {2026}
}"""


def model_card(source: Source, config: Config, name: str, license_name: str) -> str:
    """Return README.md for weights and portable settings. name: the name that others sample with."""
    results = evaluation_results(source)
    metadata = card_metadata(config, name, license_name, results).to_yaml()
    parts = [f"---\n{metadata}\n---\n\n# {name}", introduction(source), *figures(results, config)]
    parts += [usage(config, name), recipe(config), f"## Citation\n\n```bibtex\n{CITATION}\n```"]
    return "\n\n".join(parts) + "\n"


OLD_NAMES = {"sampler": "sampling_method", "steps": "num_sampling_steps", "w": "self_cond_scale",
             "self_cond_cfg_scale": "self_cond_scale", "gamma": "sde_gamma"}  # fmt: skip
"""Fields of a sampling setting as versions 0.1.0 and 0.2.0 wrote them."""


def evaluation_results(source: Source) -> list[dict]:
    """Return the results of `elf eval` for these weights: those in RUN/eval for their step."""
    if source.kind != "run" or source.folder is None or not source.ema:
        return []
    results = []
    for file in sorted((source.folder / "eval").glob("*/results.json*")):
        try:
            text = file.read_text(encoding="utf-8")
            entries = json.loads(text) if file.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
            for entry in entries:
                entry |= entry.get("of", {})  # step, seed and num_samples of a line of results.jsonl
                entry["setting"] = {OLD_NAMES.get(name, name): value for name, value in entry["setting"].items()}
                entry["scores"] = [score for score in entry["scores"] if score["value"] is not None]
            results += [entry for entry in entries if entry["step"] == source.step and entry["scores"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not a file of `elf eval`
    return results


def task_type(config: Config) -> str:
    """Return the Hub's name of the model's task."""
    if not config.data.takes_sources:
        return "text-generation"
    return "translation" if "bleu" in config.evaluation.metrics else "summarization"


def card_metadata(config: Config, name: str, license_name: str, results: list[dict]) -> ModelCardData:
    """Return the card's YAML header. The Hub reads the results as its `model-index`."""
    data = config.data
    dataset = data.eval_data_path or data.data_path or data.task or "unknown"
    where: dict[str, Any] = {"task_type": task_type(config), "dataset_type": dataset, "dataset_name": dataset}
    scores = [
        EvalResult(
            **where,
            dataset_split="validation",
            metric_type="perplexity" if score["metric"] == "ppl" else score["metric"],
            metric_name=f"{label(score['metric'])} ({setting_text(result['setting'])})",
            metric_value=round(float(score["value"]), 4),
            metric_args={"num_samples": result["num_samples"], "seed": result["seed"], **result["setting"]},
        )
        for result in results
        for score in result["scores"]
    ]
    return ModelCardData(
        license=license_name,
        library_name="elfcli",
        pipeline_tag=task_type(config),
        tags=["elf", "embedded-language-flows", "diffusion-language-model", "flow-matching", "jax"],
        datasets=[data.data_path] if data.data_path and "/" in data.data_path else None,
        model_name=name if scores else None,
        eval_results=scores or None,
    )


def setting_text(setting: dict) -> str:
    """Return a sampling setting in words: `SDE 32 steps, gamma 1.5, CFG 1, w 3`."""
    sampler, w = setting["sampling_method"], setting["self_cond_scale"]
    gamma = f", gamma {setting['sde_gamma']:g}" if sampler == "sde" else ""
    gamma += ", noise resampled" if setting.get("resample_noise") else ""
    return f"{sampler.upper()} {setting['num_sampling_steps']} steps{gamma}, CFG {setting['cfg']:g}, w {w:g}"


def introduction(source: Source) -> str:
    """Return the card's first paragraph: size, shape and step of the weights."""
    shape, preset = source.shape, preset_of(source.shape)
    return (
        "A continuous diffusion language model (Embedded Language Flows), trained with `elf`.\n\n"
        f"- {num_params(source.params) / 1e6:.1f}M parameters{f' ({preset})' if preset else ''}: depth "
        f"{shape.depth}, width {shape.hidden_size}, {shape.num_heads} heads, vocabulary {shape.vocab_size}\n"
        f"- {'EMA' if source.ema else 'Raw'} weights of step {source.step}, float32"
    )


def figures(results: list[dict], config: Config) -> list[str]:
    """Return a part with the table of measured figures and their protocols, no part without results."""
    if not results:
        return []
    where = config.data.eval_data_path or f"the held-out part of {config.data.data_path or 'the training data'}"
    measured = f"Measured with `elf eval` on {where if not config.evaluates_free_texts else 'samples'}."
    lines = ["## Figures", "", measured, ""]
    lines += ["| metric | value | sampling | samples | seed | protocol |", "|---|---|---|---|---|---|"]
    for result in results:
        for score in result["scores"]:
            details = [f"{k} {without_markup(score[k])}" for k in DETAILS if k in score]
            known = score["metric"] in scoring.MODULES
            protocol = "; ".join([*([scoring.metric(score["metric"]).description] if known else []), *details])
            lines.append(
                f"| {label(score['metric'])} | {score['value']:.2f} | {setting_text(result['setting'])} "
                f"| {result['num_samples']} | {result['seed']} | {protocol.replace('|', ' ')} |"
            )
    return ["\n".join(lines)]


def label(name: str) -> str:
    """Return the label of a metric, or the name of an unknown one."""
    return scoring.metric(name).label if name in scoring.MODULES else name


def without_markup(value: Any) -> str:
    """Return a detail for the table: short numbers, names without folders."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else str(value)


def usage(config: Config, name: str) -> str:
    """Return the part on how to sample."""
    options, note = "--num-samples 8", ""
    if config.data.gaps:
        options = '--template "Dear [..], thank you for [..]."'
    elif config.data.takes_sources:
        options, note = "--input sources.jsonl", '\n\nEach line of `sources.jsonl` is `{"input": "..."}`.'
    return f"## How to sample\n\n```\npip install elfcli\nelf sample --checkpoint {name} {options}\n```{note}"


def recipe(config: Config) -> str:
    """Return the part on training data and the main settings; config.toml holds the rest."""
    data, encoder, training, optimization = config.data, config.encoder, config.training, config.optimization
    length = f"{training.steps} steps" if training.steps else f"{training.epochs:g} epochs"
    rate = f"lr {optimization.lr:g}" if optimization.lr else f"blr {optimization.blr:g} per 256 examples"
    objective, width = config.objective, encoder.embedding_dim
    own = f" (width {width})" if encoder.encoder_model_name == "embedding" else ""
    noise = f"{objective.denoiser_noise_scale:g} denoiser, {objective.decoder_noise_scale:g} decoder"
    rows = {
        "task": data.task or "-",
        "training data": data.data_path or "-",
        "sequence length": f"{data.max_length} tokens, of which at most {data.max_input_length} are the condition",
        "encoder": encoder.encoder_model_name + own,
        "latents": f"mean {encoder.latent_mean}, standard deviation {encoder.latent_std}",
        "length": f"{length}, batch {config.global_batch}, accumulation {optimization.grad_accum_steps}",
        "optimizer": f"{optimization.optimizer}, {rate}, {optimization.lr_schedule}, EMA {optimization.ema_decay:g}",
        "noise scales": noise,
        "condition dropped": f"{objective.label_drop_prob:g}",
        "seed": str(training.seed),
    }
    distilled = config.distillation
    if distilled.student is not None:
        guided = f", CFG {distilled.teacher_cfg:g}" if distilled.distill_objective == "progressive" else ""
        rows["distilled"] = f"{distilled.student} of {distilled.teacher}{guided}"
    lines = ["## Training data and recipe", "", "| setting | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join([*lines, "", "`config.toml` holds every setting, `sampling.yaml` the sampling presets."])
