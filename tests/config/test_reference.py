"""A reference file means the same in elf as in the reference, whatever settings it leaves out."""

import random

import pytest
import yaml

from elfcli.config.check import check_devices
from elfcli.config.reference import KEYS
from elfcli.config.resolve import ConfigError, resolve, with_devices
from elfcli.config.schema import RENAMED, SECTION_OF, Config
from elfcli.runs.length import run_length

DEFAULTS = {
    "max_length": 128, "max_input_length": None, "pad_token": "pad", "latent_mean": 0.0, "latent_std": 1.0,
    "model": "ELF-B", "bottleneck_dim": 128, "num_time_tokens": 4, "num_self_cond_cfg_tokens": 4,
    "num_model_mode_tokens": 4, "proj_dropout": 0.0, "denoiser_p_mean": 0.8, "denoiser_p_std": 0.8,
    "denoiser_noise_scale": 1.0, "t_eps": 0.05, "time_schedule": "logit_normal", "decoder_prob": 0.5,
    "decoder_noise_scale": 1.0, "decoder_p_mean": 0.8, "decoder_p_std": 0.8, "label_drop_prob": 0.0,
    "self_cond_prob": 0.5, "self_cond_cfg_min": 0.5, "self_cond_cfg_max": 5.0, "epochs": 200, "warmup_steps": 5000,
    "lr": None, "blr": 5e-5, "min_lr": 0.0, "lr_schedule": "constant", "weight_decay": 0.0, "optimizer": "muon",
    "adam_b1": 0.9, "adam_b2": 0.95, "grad_accum_steps": 1, "ema_decay1": 0.9999, "online_eval": True, "seed": 0,
    "num_samples": 100,
}  # fmt: skip
COMMON = {
    "encoder_model_name": "t5-small", "latent_mean": 0.0, "latent_std": 0.2, "bottleneck_dim": 128,
    "num_time_tokens": 4, "num_self_cond_cfg_tokens": 4, "num_model_mode_tokens": 4, "denoiser_p_mean": -1.5,
    "denoiser_p_std": 0.8, "denoiser_noise_scale": 2.0, "t_eps": 0.05, "time_schedule": "logit_normal",
    "decoder_prob": 0.2, "decoder_p_mean": 0.8, "decoder_p_std": 0.8, "self_cond_prob": 0.5,
    "global_batch_size": 512, "blr": 0.001, "weight_decay": 0.0, "optimizer": "muon", "ema_decay1": 0.9999,
    "log_freq": 100, "hf_repo_id": None, "resume": None, "seed": 42,
}  # fmt: skip
OWT = COMMON | {
    "data_path": "embedded-language-flows/openwebtext-t5", "max_length": 1024, "pad_token": "pad",
    "decoder_noise_scale": 5.0, "warmup_epochs": 0.5, "warmup_steps": -1, "num_samples": 1000, "save_freq": 1,
    "eval_freq": 1,
}  # fmt: skip
PAIRS = COMMON | {
    "pad_token": "eos", "model": "ELF-B", "decoder_noise_scale": 1.0, "label_drop_prob": 0.1, "epochs": 100,
    "warmup_steps": 5000, "save_freq": 10, "eval_freq": 10,
}  # fmt: skip
PUBLISHED = {
    "owt-B": OWT | {"model": "ELF-B", "epochs": 5},
    "owt-M": OWT | {"model": "ELF-M", "epochs": 4},
    "owt-L": OWT | {"model": "ELF-L", "epochs": 3},
    "de-en": PAIRS | {"data_path": "embedded-language-flows/wmt14_de-en_train_t5", "max_length": 128,
                      "max_input_length": 64, "num_samples": 5000},
    "xsum": PAIRS | {"data_path": "embedded-language-flows/xsum_train_t5", "max_length": 1088,
                     "max_input_length": 1024, "num_samples": 100},
}  # fmt: skip
OTHERS = {"batch_size": 64, "grad_accum_steps": 4, "lr": 0.002, "optimizer": "adamw", "lr_schedule": "cosine",
          "warmup_epochs": 0.25}  # fmt: skip
SIZES = {"ELF-B": (12, 768, 12), "ELF-M": (24, 1056, 16), "ELF-L": (32, 1280, 16)}
EXAMPLES, DEVICES = 100_000, 8


def written(folder, content, name="reference.yml"):
    path = folder / name
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def its_meaning(file: dict) -> dict:
    """Return what the reference computes from a file on DEVICES devices; one of its steps is a micro-batch."""
    cfg = DEFAULTS | file
    batch = cfg.get("global_batch_size") or (cfg["batch_size"] * DEVICES if cfg.get("batch_size") else 512)
    accumulate = cfg["grad_accum_steps"]
    epoch = EXAMPLES // batch
    warmup = cfg["warmup_steps"] if cfg["warmup_steps"] >= 0 else int((cfg.get("warmup_epochs") or 0) * epoch)
    science = {name: cfg[name] for name in DEFAULTS if name not in ("model", "lr", "warmup_steps", "blr")}
    return science | {
        "max_input_length": cfg["max_input_length"] or 0,  # 0: chosen from the data, none without sources
        "batch": batch,
        "shape": SIZES[cfg["model"]],
        "rate": cfg["lr"] or cfg["blr"] * batch * accumulate / 256,
        "warmup": warmup // accumulate,
        "steps": epoch * cfg["epochs"] // accumulate,
    }


def our_meaning(config: Config) -> dict:
    ours = {name: RENAMED.get(name, name) for name in DEFAULTS}
    found = {name: getattr(getattr(config, SECTION_OF[new]), new) for name, new in ours.items()}
    length = run_length(config, EXAMPLES)
    network = config.network
    rest = {"batch": config.global_batch, "shape": (network.depth, network.hidden_size, network.num_heads),
            "rate": config.peak_lr, "warmup": length.warmup_steps,
            "steps": length.total_steps}  # fmt: skip
    return {name: value for name, value in found.items() if name not in ("model", "lr", "warmup_steps", "blr")} | rest


def check_same(folder, file):
    resolved = with_devices(resolve(files=[written(folder, file)], environ={}), DEVICES)
    assert check_devices(resolved.config, DEVICES) == []
    ours, theirs = our_meaning(resolved.config), its_meaning(file)
    assert abs(ours.pop("warmup") - theirs.pop("warmup")) <= 1, file  # 0.5 epochs are rounded, not truncated
    assert ours == {**theirs, "rate": pytest.approx(theirs["rate"])}
    assert resolved.config.evaluation.clean_up


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_files(tmp_path, name):
    check_same(tmp_path, PUBLISHED[name])


@pytest.mark.parametrize("seed", range(60))
def test_files_with_any_subset_of_their_keys(tmp_path, seed):
    draw = random.Random(seed)
    full = PUBLISHED[draw.choice(sorted(PUBLISHED))] | OTHERS
    if draw.random() < 0.5:
        full.pop("global_batch_size")
    if draw.random() < 0.5:
        full["max_length"], full["max_input_length"] = 256, None
    file = {key: value for key, value in full.items() if draw.random() < draw.choice([0.1, 0.5, 0.9])}
    if (file.get("max_input_length") or 0) >= file.get("max_length", 128):
        file.pop("max_input_length")
    check_same(tmp_path, file or {"seed": 3})


def test_ours_keep_ours(tmp_path):
    ours = {
        "sections.yml": {"training": {"seed": 7}},
        "dotted.yml": {"training.seed": 7},
        "task.yml": {"task": "de-en", "seed": 7},
        "own.yml": {"keep_checkpoints": 5, "compute_dtype": "float32"},
        "list.yml": [{"num_sampling_steps": [8]}],
        "complete.yml": {"complete": True, "seed": 7},
        "empty.yml": {},
    }
    for name, content in ours.items():
        resolved = resolve(files=[written(tmp_path, content, name)], environ={})
        assert resolved.notices == () and resolved.config.optimization.blr == 0.001, name
        assert resolved.config.encoder.latent_std == 0.2, name
    toml = tmp_path / "flat.toml"
    toml.write_text("seed = 7\n")
    flat = written(tmp_path, {"seed": 7})
    for arguments in ({"files": [toml]}, {"files": [flat], "style": "elf"}, {"files": [flat], "task": "owt"},
                      {"files": [flat], "sets": ["task=owt"]}):  # fmt: skip
        resolved = resolve(**arguments, environ={})
        assert (resolved.notices, resolved.config.optimization.blr) == ((), 0.001), arguments


def test_higher_layers_still_win_and_one_line_reports_how_it_was_read(tmp_path):
    theirs = written(tmp_path, {"batch_size": 4, "grad_accum_steps": 2})
    above = tmp_path / "above.toml"
    above.write_text("blr = 0.25\n")
    resolved = resolve(files=[theirs, above], model="ELF-M", sets=["warmup_steps=9"], environ={"ELF_EPOCHS": "3"})
    config = resolved.config
    assert (config.optimization.blr, config.optimization.warmup_steps, config.training.epochs) == (0.25, 9, 3)
    assert (config.network.depth, config.training.seed) == (24, 0)
    assert resolved.origins["seed"].layer == "reference default"
    (line,) = resolved.notices
    assert line.startswith(f"{theirs}: ") and "--config-style elf" in line
    forced = resolve(files=[above], style="reference", environ={}).config
    assert (forced.optimization.blr, forced.optimization.warmup_steps) == (0.25, 5000)
    with pytest.raises(ConfigError, match="--config-style refrence: "):
        resolve(files=[theirs], style="refrence", environ={})


def test_a_batch_per_device_grows_with_the_devices_unless_a_flag_gives_it(tmp_path):
    theirs = written(tmp_path, {"batch_size": 4})
    resolved = with_devices(resolve(files=[theirs], environ={}), 8)
    assert resolved.config.global_batch == 32
    assert resolved.origins["batch_size"].layer == f"4 per device ({theirs}:1) on 8"
    assert with_devices(resolve(files=[theirs], flags={"batch_size": 6}, environ={}), 8).config.global_batch == 6
    both = written(tmp_path, {"batch_size": 4, "global_batch_size": 16})
    assert with_devices(resolve(files=[both], environ={}), 8).config.global_batch == 16
    assert resolve(files=[both], flags={"batch_size": 6}, environ={}).config.global_batch == 6
    odd = written(tmp_path, {"batch_size": 4, "lr_schedule": "cosine", "min_lr": 2e-6})
    resolved = resolve(files=[odd], environ={})
    assert with_devices(resolved, 8).config.training.batch_size == 32
    with pytest.raises(ConfigError, match="min_lr 2e-06 "):
        with_devices(resolved, 1)


def test_warm_up_in_micro_batches_becomes_optimizer_steps(tmp_path):
    for file, steps in (({"grad_accum_steps": 4}, 1250), ({"grad_accum_steps": 4, "warmup_steps": 10}, 2)):
        resolved = resolve(files=[written(tmp_path, file)], environ={})
        assert resolved.config.optimization.warmup_steps == steps
        assert "micro-batches" in resolved.origins["warmup_steps"].layer


def test_a_short_trial_of_a_file_without_a_warm_up_only_warns(tmp_path):
    resolved = resolve(files=[written(tmp_path, {"data_path": "d"})], flags={"steps": 100}, environ={})
    assert len(resolved.warnings) == 1 and "warmup_steps 5000" in resolved.warnings[0]


def test_every_command_that_takes_a_file_takes_the_style(elf, tmp_path):
    for command in ("train", "plan", "sample", "eval", "sweep", "export", "config show", "config check"):
        code, out, _ = elf(*command.split(), "--help")
        assert code == 0 and "--config-style" in out, command
    path = written(tmp_path, {"seed": 3})
    code, out, err = elf("config", "show", "--config", path)
    assert code == 0 and "blr = 5.0e-05  # reference default" in out and str(path) in err
    code, out, err = elf("config", "show", "--config", path, "--config-style", "elf")
    assert code == 0 and "blr = 0.001  # default" in out and err == ""


def test_its_keys_are_all_known():
    assert {*SECTION_OF, *RENAMED} >= KEYS
