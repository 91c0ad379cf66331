import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elfcli.config.resolve import ConfigError, load_config, model_names, resolve, resolve_run, task_names
from elfcli.config.schema import SECTION_OF, SECTIONS, Config

REFERENCE_YAML = """\
data_path: some/data
eval_data_path: null
max_length: 128
max_input_length: 64
pad_token: eos
tokenizer_name: t5-small
encoder_model_name: t5-small
encoder_checkpoint: encoder.pkl
latent_mean: 0.0
latent_std: 0.2
model: ELF-B
bottleneck_dim: 64
num_time_tokens: 4
num_self_cond_cfg_tokens: 4
num_model_mode_tokens: 4
attn_dropout: 0.0
proj_dropout: 0.0
denoiser_p_mean: -1.5
denoiser_p_std: 0.8
denoiser_noise_scale: 2.0
t_eps: 5e-2
time_schedule: logit_normal
decoder_prob: 0.2
decoder_noise_scale: 1
decoder_p_mean: 0.8
decoder_p_std: 0.8
label_drop_prob: 0.1
self_cond_prob: 0.5
self_cond_cfg_min: 0.5
self_cond_cfg_max: 5
epochs: 100
warmup_epochs: 0
warmup_steps: 5000
batch_size: 512
global_batch_size: null
lr: null
blr: 1e-3
min_lr: 0.0
lr_schedule: constant
weight_decay: 0.0
optimizer: muon
adam_b1: 0.9
adam_b2: 0.95
grad_accum_steps: 1
ema_decay: 0.9999
sampling_configs_path: sampling.yml
num_samples: 5000
online_eval: true
eval_ppl_model: gpt2-large
eval_ppl_batch_size: 8
eval_ppl_max_length: 1024
log_every_steps: 100
eval_every_epochs: 10
save_every_epochs: 10
output_dir: out
hf_repo_id: me/mirror
resume: null
use_wandb: true
wandb_project: elf
wandb_entity: null
wandb_run_name: 2026-05-01
wandb_tag: null
wandb_resume: allow
seed: 42
num_workers: 4
"""
REFERENCE_SAMPLING = """\
- sampling_method: ode
  num_sampling_steps: [32, 64]
  cfgs: [1, 2.0]
  self_cond_cfg_scales: [1.0]
  time_schedule: logit_normal
- sampling_method: sde
  num_sampling_steps: [64]
  cfgs: [1.0]
  self_cond_cfg_scales: [3.0]
  time_schedule: uniform
  sde_gamma: 1.5
"""


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(**arguments):
    with pytest.raises(ConfigError) as caught:
        resolve(**{"environ": {}, **arguments})
    assert caught.value.exit_code == 2
    assert all("\n" not in line for line in caught.value.problems)
    return list(caught.value.problems)


@given(given_layers=st.sets(st.sampled_from(["file1", "file2", "environment", "--set", "command line"])))
@settings(max_examples=32, deadline=None)
def test_the_last_layer_that_sets_a_key_wins_and_is_named(tmp_path_factory, given_layers):
    folder = tmp_path_factory.mktemp("layers")
    value = {"file1": 11, "file2": 12, "environment": 13, "--set": 14, "command line": 15}
    files = [
        write(folder, "1.toml", f"[training]\nbatch_size = {value['file1']}\n" if "file1" in given_layers else ""),
        write(folder, "2.yml", f"\nbatch_size: {value['file2']}\n" if "file2" in given_layers else ""),
    ]
    resolved = resolve(
        task="toy-de-en",
        files=files,
        environ={"ELF_BATCH_SIZE": str(value["environment"])} if "environment" in given_layers else {},
        sets=[f"training.batch_size={value['--set']}"] if "--set" in given_layers else [],
        flags={"batch_size": value["command line"] if "command line" in given_layers else None},
    )
    last = next((layer for layer in reversed(value) if layer in given_layers), None)
    origin = resolved.origins["batch_size"]
    assert resolved.config.training.batch_size == (value[last] if last else 64)
    expected = {None: "task preset", "file1": "config file", "file2": "config file"}.get(last, last)
    assert origin.layer == expected
    if last in ("file1", "file2"):
        assert (origin.file, origin.line) == (str(files[int(last[-1]) - 1]), 2)


def test_model_preset_lies_over_the_task_preset_and_beneath_files(tmp_path):
    path = write(tmp_path, "a.toml", "depth = 7\n")
    resolved = resolve(task="toy-de-en", model="ELF-B", files=[path], environ={})
    network = resolved.config.network
    assert (network.model, network.depth, network.hidden_size) == ("ELF-B", 7, 768)
    assert resolved.origins["hidden_size"].layer == "model preset"
    assert resolved.origins["model"].layer == "command line"
    assert resolve(task="toy-de-en", environ={}).origins["model"].layer == "task preset"


def test_names_of_task_and_model_follow_the_precedence_too(tmp_path):
    path = write(tmp_path, "a.yaml", "task: toy-text\nmodel: ELF-S\n")
    by_file = resolve(files=[path], environ={}).config
    assert (by_file.data.task, by_file.data.pad_token, by_file.network.depth) == ("toy-text", "pad", 8)
    by_env = resolve(files=[path], environ={"ELF_MODEL": "ELF-M"}).config
    assert by_env.network.depth == 24
    by_set = resolve(files=[path], environ={"ELF_MODEL": "ELF-M"}, sets=["model=ELF-L", "task=xsum"]).config
    assert (by_set.network.depth, by_set.data.max_length) == (32, 1088)
    by_flag = resolve(files=[path], sets=["model=ELF-L"], model="ELF-B", environ={}).config
    assert by_flag.network.depth == 12


def test_reference_yaml_loads_as_it_is(tmp_path):
    write(tmp_path, "sampling.yml", REFERENCE_SAMPLING)
    path = write(tmp_path, "reference.yml", REFERENCE_YAML)
    resolved = resolve(files=[path], environ={})
    config = resolved.config
    assert (config.network.depth, config.network.bottleneck_dim) == (12, 64)
    assert (config.objective.t_eps, config.optimization.blr, config.optimization.lr) == (0.05, 0.001, None)
    assert config.tracking.tracker == "wandb"
    assert resolved.origins["tracker"] == resolved.origins["use_wandb"]
    assert config.tracking.wandb_run_name == "2026-05-01"
    assert config.sampling[0].num_sampling_steps == (32, 64)
    assert config.sampling[1].sde_gamma == 1.5
    assert resolved.origins["sampling"].file == str(tmp_path / "sampling.yml")
    assert config.tracking.hf_repo_id == "me/mirror"
    line = REFERENCE_YAML.split("\n").index("wandb_resume: allow") + 1
    (warning,) = resolved.warnings
    assert warning.startswith(f"{path}:{line}: wandb_resume ")


def test_every_reference_key_is_known():
    keys = [line.split(":")[0] for line in REFERENCE_YAML.splitlines()]
    assert set(keys) <= set(SECTION_OF)


def test_all_problems_are_reported_at_once_with_their_lines(tmp_path):
    text = """\
batch_szie = 3
max_length = 16
max_input_length = 16

[optimization]
blr = "fast"
epochs = 3
decoder_prob = 0.5

[objective]
decoder_prob = 1.5
pad_tokn = "eos"

[[sampling]]
num_sampling_steps = [32]
cfg = [1.0]

[[sampling]]
sampling_method = "odd"
"""
    path = write(tmp_path, "bad.toml", text)
    *problems, contradiction = problems_of(
        files=[path], sets=["seeed=1", "lr", "lr=-1"], environ={"ELF_BATCH_SZIE": "1"}, model="ELF-X"
    )
    assert problems == [
        f"{path}:1: batch_szie: unknown setting (did you mean 'batch_size'?)",
        f"{path}:6: blr: expected a number (greater than 0), got 'fast'",
        f"{path}:7: optimization.epochs: unknown setting (did you mean 'training.epochs'?)",
        f"{path}:8: optimization.decoder_prob: unknown setting (did you mean 'objective.decoder_prob'?)",
        f"{path}:11: decoder_prob: expected a number (at least 0, at most 1), got 1.5",
        f"{path}:12: objective.pad_tokn: unknown setting (did you mean 'pad_token'?)",
        f"{path}:16: sampling.cfg: unknown setting (did you mean 'cfgs'?)",
        f"{path}:19: sampling.sampling_method: expected 'ode' or 'sde' or 'multistep' or 'refine', got 'odd' "
        "(did you mean 'ode'?)",
        "ELF_BATCH_SZIE: unknown setting (did you mean 'ELF_BATCH_SIZE'?)",
        "--set: seeed: unknown setting (did you mean 'seed'?)",
        "--set lr: expected key=value",
        "--set lr: expected a number (greater than 0), got -1",
        "command line: unknown model 'ELF-X' (did you mean 'ELF-XS'?); known: ELF-B, ELF-L, ELF-M, ELF-S, ELF-XS",
    ]
    assert contradiction.startswith(f"{path}:3: max_input_length 16 ") and "max_length 16" in contradiction


@pytest.mark.parametrize(
    ("text", "section", "name", "value"),
    [
        ("lr=1e-3", "optimization", "lr", 0.001),
        ("lr=none", "optimization", "lr", None),
        ("optimization.lr=.5", "optimization", "lr", 0.5),
        ("use_wandb=true", "tracking", "use_wandb", True),
        ("online_eval=1", "evaluation", "online_eval", True),
        ("pad_token=eos", "data", "pad_token", "eos"),
        ("tracker=none", "tracking", "tracker", "none"),
        ('metrics=["bleu"]', "evaluation", "metrics", ("bleu",)),
        ("metrics=bleu,ppl", "evaluation", "metrics", ("bleu", "ppl")),
        ("warmup_steps=5e3", "optimization", "warmup_steps", 5000),
        ("wandb_run_name=42", "tracking", "wandb_run_name", "42"),
        ("wandb_run_name=a=b", "tracking", "wandb_run_name", "a=b"),
        ("latent_std=measure", "encoder", "latent_std", "measure"),
        ('output_dir="with # and \\" inside"', "training", "output_dir", 'with # and " inside'),
    ],
)
def test_set_takes_convenient_forms(text, section, name, value):
    config = resolve(sets=[text], environ={}).config
    found = getattr(getattr(config, section), name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("bad", ["batch_size=true", "batch_size=1.5", "lr=nan", "lr=inf", "use_wandb=2", "seed=-1"])
def test_values_of_the_wrong_type_or_range_are_refused(bad):
    assert bad.split("=")[0] in problems_of(sets=[bad])[0]


def test_quoted_numbers_in_files_are_wrong_types(tmp_path):
    path = write(tmp_path, "a.yaml", 'seed: 1\nbatch_size: "64"\n')
    (line,) = problems_of(files=[path])
    assert line.startswith(f"{path}:2: batch_size: ") and "'64'" in line and "quotes" in line


def test_null_leaves_a_setting_that_needs_a_value_alone(tmp_path):
    path = write(tmp_path, "a.yaml", "max_input_length: null\nlr: ~\n")
    config = resolve(task="toy-de-en", files=[path], environ={}).config
    assert config.optimization.lr is None
    assert config.data.max_input_length > 0


def test_a_setting_written_twice_under_two_names_is_reported(tmp_path):
    path = write(tmp_path, "a.toml", "blr = 1\n[optimization]\nblr = 2\n")
    (line,) = problems_of(files=[path])
    assert line.startswith(f"{path}:3: optimization.blr: ") and "'blr'" in line


def test_sampling_of_a_later_layer_wins_over_a_path_and_the_other_way_round(tmp_path):
    write(tmp_path, "s.yml", REFERENCE_SAMPLING)
    named = write(tmp_path, "named.toml", 'sampling_configs_path = "s.yml"\n')
    inline = write(tmp_path, "inline.toml", "[[sampling]]\nnum_sampling_steps = [5]\n")
    assert resolve(files=[named, inline], environ={}).config.sampling[0].num_sampling_steps == (5,)
    assert resolve(files=[inline, named], environ={}).config.sampling[0].num_sampling_steps == (32, 64)
    by_set = resolve(files=[inline], sets=[f"sampling_configs_path={tmp_path / 's.yml'}"], environ={})
    assert len(by_set.config.sampling) == 2 and by_set.origins["sampling"].layer == "--set"
    alone = resolve(files=[tmp_path / "s.yml"], environ={}).config
    assert alone.sampling == by_set.config.sampling


def test_a_missing_sampling_file_is_an_error(tmp_path):
    path = write(tmp_path, "a.toml", '\nsampling_configs_path = "gone.yml"\n')
    (line,) = problems_of(files=[path])
    assert line.startswith(f"{path}:2: sampling_configs_path: gone.yml: ")


def test_tracker_of_the_same_or_a_later_layer_wins_over_use_wandb(tmp_path):
    path = write(tmp_path, "a.yaml", "use_wandb: true\n")
    assert resolve(files=[path], sets=["tracker=tensorboard"], environ={}).config.tracking.tracker == "tensorboard"
    assert resolve(sets=["tracker=none"], flags={"use_wandb": True}, environ={}).config.tracking.tracker == "wandb"


@pytest.mark.parametrize(
    ("later", "gone"),
    [("epochs=3", "steps minutes"), ("minutes=2", "steps"), ("steps=9", "minutes"), ("blr=0.1", "lr"),
     ("warmup_epochs=1", "warmup_steps"), ("save_every_epochs=2", "save_every_steps"),
     ("batch_size=8", "global_batch_size")],
)  # fmt: skip
def test_the_latest_layer_wins_among_settings_for_the_same_thing(tmp_path, later, gone):
    """All stay within one file, such as a run's."""
    given = {"steps": 100, "minutes": 5, "lr": 0.01, "warmup_steps": 4, "save_every_steps": 7, "global_batch_size": 16}
    others = {"epochs": 1, "blr": 0.5, "warmup_epochs": 2, "save_every_epochs": 3, "batch_size": 4}
    (tmp_path / "run.toml").write_text("".join(f"{name} = {value}\n" for name, value in (given | others).items()))
    before, after = (resolve(files=[tmp_path / "run.toml"], sets=sets, environ={}) for sets in ([], [later]))
    layers = {name: after.origins[name].layer for name in given}
    assert {name for name in given if before.origins[name].layer == "default"} == set()
    assert {name for name in given if layers[name] == "default"} == set(gone.split())
    value = getattr(getattr(after.config, SECTION_OF[later.split("=")[0]]), later.split("=")[0])
    assert value == float(later.split("=")[1])


def test_the_references_defaults_stay_next_to_what_its_files_set(tmp_path):
    """Its default of 5,000 warm-up steps wins over warmup_epochs."""
    first, second = tmp_path / "first.yml", tmp_path / "second.yml"
    first.write_text("max_length: 64\nwarmup_epochs: 2\nglobal_batch_size: 64\n")
    second.write_text("max_length: 32\nbatch_size: 8\n")
    found = [resolve(files=[first], sets=sets, environ={}) for sets in ([], ["warmup_epochs=1"])]
    assert [one.config.optimization.warmup_steps for one in found] == [5000, -1]
    both = resolve(files=[first, second], environ={}).config.training
    assert (both.global_batch_size, both.batch_size) == (None, 8), "of two files the later counts"


def test_short_trial_of_a_recipe_only_warns_of_its_warm_up():
    resolved = resolve(task="de-en", flags={"steps": 100}, environ={})
    assert len(resolved.warnings) == 1 and "warmup_steps 5000" in resolved.warnings[0]
    (line,) = problems_of(task="de-en", flags={"steps": 100}, sets=["warmup_steps=200"])
    assert "warmup_steps 200" in line and "100 steps" in line


def test_a_complete_file_takes_no_presets_and_refuses_new_ones(tmp_path):
    path = write(tmp_path, "config.toml", 'complete = true\ntask = "toy-de-en"\nmodel = "a model long gone"\n')
    config = resolve(files=[path], sets=["seed=1"], task="toy-de-en", environ={}).config
    assert config.data.max_length == Config().data.max_length
    (line,) = problems_of(files=[path], model="ELF-B")
    assert "complete = true" in line and "'ELF-B'" in line and str(path) in line


def test_load_config_does_not_read_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("ELF_SEED", "7")
    path = write(tmp_path, "a.toml", "batch_size = 3\n")
    assert load_config(path).training.seed == 42
    assert resolve(files=[path]).config.training.seed == 7


@pytest.mark.parametrize("task", task_names())
def test_every_preset_resolves_without_warnings(task):
    for model in [None, *model_names()]:
        resolved = resolve(task=task, model=model, environ={})
        assert resolved.warnings == ()
        assert resolved.config.evaluation.metrics


def test_published_sizes():
    sizes = {
        name: (network.depth, network.hidden_size, network.num_heads)
        for name in model_names()
        for network in [resolve(model=name, environ={}).config.network]
    }
    assert sizes["ELF-B"] == (12, 768, 12) and sizes["ELF-M"] == (24, 1056, 16) and sizes["ELF-L"] == (32, 1280, 16)


def test_unset_is_the_default_of_every_setting_that_may_be_unset():
    """Settings that `config.toml` leaves out must be read back as None."""
    for section in SECTIONS.values():
        for name, field in section.model_fields.items():
            if type(None) in getattr(field.annotation, "__args__", ()):
                assert field.default is None, name


@pytest.mark.parametrize("key", ["branching", "objective.branching"])
def test_the_retired_key_branching_is_read_everywhere(tmp_path, key):
    path = write(tmp_path, "a.toml", f'{key} = "split"\n')
    resolved = resolve(files=[path], sets=[f"{key}=split"], environ={"ELF_BRANCHING": "split"})
    assert resolved.warnings == () and "branching" not in resolved.origins
    (line,) = problems_of(sets=[f"{key}=other"])
    assert line.startswith("--set branching: ") and "'split' or 'device'" in line


def test_device_branching_warns_in_a_new_run(tmp_path):
    path = write(tmp_path, "a.toml", '[objective]\nbranching = "device"\n')
    (line,) = resolve(files=[path], environ={}).warnings
    assert line.startswith(f"{path}:2: branching=device ")


def test_a_run_of_device_branching_is_sampled_but_not_resumed(tmp_path):
    text = 'complete = true\n[objective]\nbranching = "{}"\n'
    path = write(tmp_path, "config.toml", text.format("device"))
    assert load_config(path) == Config()
    with pytest.raises(ConfigError, match=r"branching=device.* 0\.1\.0"):
        resolve_run(path)
    write(tmp_path, "config.toml", text.format("split"))
    assert resolve_run(path, ["seed=3"]).config.training.seed == 3


def test_former_names_are_read_with_a_notice(tmp_path):
    path = write(tmp_path, "a.toml", "[training]\nsave_freq = 2.0\n")
    found = resolve(files=[path], sets=["ema_decay1=0.5", "training.keep=7"], environ={"ELF_FRAMES": "[8]"})
    config = found.config
    assert (config.training.save_every_epochs, config.training.keep_checkpoints) == (2.0, 7)
    assert (config.optimization.ema_decay, config.data.buckets) == (0.5, (8,))
    assert {(line.rpartition(": ")[0], line.split()[1], line.split()[-1]) for line in found.notices} == {
        (f"{path}:2", "save_freq", "save_every_epochs"),
        ("--set", "ema_decay1", "ema_decay"),
        ("--set", "keep", "keep_checkpoints"),
        ("ELF_FRAMES", "frames", "buckets"),
    }
    complete = write(tmp_path, "run.toml", "complete = true\n[training]\nkeep = 4\n")
    found = resolve(files=[complete], environ={})
    assert found.config.training.keep_checkpoints == 4 and found.notices == (), "a run of an earlier version"


def test_the_removed_grid_is_replaced_in_files_and_refused_as_an_option(tmp_path):
    path = write(tmp_path, "a.toml", 'complete = true\n[[sampling]]\ntime_schedule = "fitted"\n')
    found = resolve(files=[path], environ={})
    assert found.config.sampling[0].time_schedule == "uniform" and "`uniform`" in found.notices[0]
