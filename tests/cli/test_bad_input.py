"""Bad input over all commands: one line that says what and where, the right exit code, nothing changed on disk."""

import functools
import hashlib
import os
import shlex
import shutil
from pathlib import Path

import bad_files
import pytest

from elfcli.__main__ import main


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return bad_files.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def before(world):
    """What lies in the world, kept up to date by the one test that may find it changed."""
    return tree(world)


def tree(folder: Path) -> dict[str, str]:
    """What lies below a folder: a digest of each file by its path."""
    found = {}
    for where, folders, files in os.walk(folder):
        found |= dict.fromkeys((os.path.join(where, name) for name in folders), "folder")
        for name in set(files) - {".lock"}:  # which says who trained here last
            path = os.path.join(where, name)
            state = os.lstat(path)
            found[path] = digest(path, state.st_ino, state.st_size, state.st_mtime_ns)
    return found


@functools.cache
def digest(path: str, *state: int) -> str:
    """Of a file or of where a link points; a file that nobody has written since is not read again."""
    return os.readlink(path) if os.path.islink(path) else hashlib.blake2b(Path(path).read_bytes()).hexdigest()


def forbidden(*_, **__):
    raise AssertionError("bad input came as far as computing")


@pytest.fixture
def elf(world, capsys, monkeypatch):
    """Runs `elf` in this process, in the folder of bad files: (exit code, stdout, stderr)."""
    import elfcli.sampling.generate
    import elfcli.training.loop

    for name in [name for name in os.environ if name.startswith(("ELF_", "HF_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(world)
    monkeypatch.setattr("elfcli.ui.quiet.quiet", lambda: None)
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(elfcli.training.loop, "make_train_step", forbidden)
    monkeypatch.setattr(elfcli.sampling.generate, "outputs", forbidden)

    def run(arguments):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run


TRAIN = "train --task toy-de-en -o new "
DATA = TRAIN + "--data data -s batch_size=8 -s max_length=16 -s max_input_length=8 -s warmup_steps=0 "
TOKENIZE = "tokenize -o new --tokenizer data/tokenizer "
SAMPLE = "sample --checkpoint run "
MMD = "distill --teacher run -o new --objective mmd -s max_input_length=0 "
EVAL = "eval --checkpoint run "
SWEEP = "sweep run --data data "

CASES = [
    # tokenize
    ("tokenize -o new", ["Nothing to tokenize", "--input"]),
    (TOKENIZE + "-i gone.jsonl", ["gone.jsonl"]),
    (TOKENIZE + "-i god.txt", ["god.txt", "did you mean 'good.txt'"]),
    (TOKENIZE + "-i folder", ["folder"]),
    (TOKENIZE + "-i empty.txt", ["empty.txt", "empty"]),
    (TOKENIZE + "-i blank.txt", ["blank.txt"]),
    (TOKENIZE + "-i empty.jsonl", ["empty.jsonl"]),
    (TOKENIZE + "-i binary.txt", ["binary.txt:1", "binary"]),
    (TOKENIZE + "-i binary.jsonl", ["binary.jsonl:1", "binary"]),
    (TOKENIZE + "-i latin.txt", ["latin.txt:1", "UTF-8"]),
    (TOKENIZE + "-i utf16.txt", ["utf16.txt:1"]),
    (TOKENIZE + "-i list.jsonl", ["list.jsonl", "JSON list"]),
    (TOKENIZE + "-i broken.jsonl", ["broken.jsonl:2", "not JSON"]),
    (TOKENIZE + "-i number.jsonl", ["number.jsonl:1", "'text' holds int"]),
    (TOKENIZE + "-i nokey.jsonl", ["nokey.jsonl:1", "txet"]),
    (TOKENIZE + "-i nokey.jsonl --text-key text", ["nokey.jsonl:1", "did you mean 'txet'"]),
    (TOKENIZE + "-i surrogate.jsonl", ["surrogate.jsonl:1", "surrogate"]),
    (TOKENIZE + "-i deep.jsonl", ["deep.jsonl:1", "not JSON"]),
    (TOKENIZE + "-i ragged.csv", ["ragged.csv:3", "fields"]),
    (TOKENIZE + "-i quote.csv", ["quote.csv:2"]),
    (TOKENIZE + "-i file.docx", ["file.docx", "unknown format"]),
    (TOKENIZE + "-i text.parquet", ["text.parquet", "Parquet"]),
    (TOKENIZE + "-i text.txt.gz", ["text.txt.gz:1", "cannot be read"]),
    (TOKENIZE + "-i cut.txt.gz", ["cut.txt.gz", "cannot be read"]),
    (TOKENIZE + "-i link.jsonl", ["link.jsonl"]),
    (TOKENIZE + "-i good.txt --validation gone.txt", ["gone.txt"]),
    (TOKENIZE + "-i good.jsonl --pack 8", ["--pack"]),
    (TOKENIZE + "-i good.txt --pack 0", ["--pack"]),
    (TOKENIZE + "-i good.txt --pack x", ["--pack"]),
    (TOKENIZE + "-i good.txt --pack 99999999999999999999", ["pack"]),
    (TOKENIZE + "-i good.txt --train-tokenizer 100", ["--train-tokenizer"]),
    (TOKENIZE + "-i good.jsonl --source-key input", ["--target-key"]),
    (TOKENIZE + "-i good.jsonl --text-key a --source-key b", ["--text-key"]),
    (TOKENIZE + "--task toy-de-em", ["toy-de-em", "did you mean 'toy-de-en'"]),
    (TOKENIZE + "--task toy-de-en -i good.txt", ["--task"]),
    (TOKENIZE + "--task toy-de-en --seed -1", ["--seed"]),
    ("tokenize -i good.txt -o new --tokenizer nowhere/at/all", ["nowhere/at/all"]),
    ("tokenize -i good.txt -o new --tokenizer folder", ["folder", "tokenizer"]),
    ("tokenize -i good.txt -o new --tokenizer some-name-of-the-hub", ["some-name-of-the-hub", "--tokenizer"]),
    ("tokenize -i good.txt -o new --train-tokenizer 30000", ["30000"]),
    ("tokenize -i good.txt -o new --train-tokenizer 99999999999999", ["--train-tokenizer"]),
    ("tokenize -i good.txt -o full --tokenizer data/tokenizer", ["full"]),
    ("tokenize -i good.txt -o full --overwrite --tokenizer data/tokenizer", ["full", "not an elf data folder"]),
    ("tokenize -i good.txt -o good.txt/new --tokenizer data/tokenizer", ["good.txt"]),
    ("tokenize -i good.txt -o /proc/new --tokenizer data/tokenizer", ["/proc"]),
    ("tokenize -i good.txt -o '' --tokenizer data/tokenizer", ["--output"]),
    # addresses where paths must be local
    ("tokenize -i good.txt -o s3://b/new --train-tokenizer 9", ["--output s3://b/new", "local"]),
    ("train --task toy-de-en --data data -o gs://b/new", ["--output gs://b/new", "local"]),
    (DATA.replace("-o new ", "") + "-s output_dir=gs://b/new", ["gs://b/new", "local"]),
    (TRAIN + "--data gs://b/data", ["--data gs://b/data", "local"]),
    (TRAIN + "-s data_path=gs://b/data", ["gs://b/data", "local"]),
    (SAMPLE + "-o hdfs://b/new", ["--output hdfs://b/new"]),
    (SAMPLE + "--trace https://b/new.html", ["--trace https://b/new.html"]),
    (EVAL + "-o gs://b/new", ["--output gs://b/new"]),
    (EVAL + "--json gs://b/new", ["--json gs://b/new"]),
    (SWEEP + "--plot gs://b/new.png", ["--plot gs://b/new.png"]),
    ("export run gs://b/new", ["gs://b/new", "local"]),
    ("demo -o gs://b/new", ["--output gs://b/new"]),
    ("distill run -o gs://b/new", ["--output gs://b/new"]),
    ("report run -o file://new.html", ["--output file://new.html"]),
    ("plan --data gs://b/new", ["--data gs://b/new"]),
    # train
    (TRAIN + "--data nowhere/at/all", ["nowhere/at/all"]),
    (TRAIN + "--data dat/", ["dat/", "did you mean 'data'"]),
    (TRAIN + "--data folder", ["folder", "holds no data"]),
    (TRAIN + "--data good.txt", ["good.txt", "file"]),
    (TRAIN + "--data some/hubname", ["some/hubname", "cannot be reached"]),
    (TRAIN + "--data ids-negative", ["Row 0", "-3"]),
    (TRAIN + "--data ids-large", ["Row 1", "40000000", "vocabulary"]),
    (TRAIN + "--data ids-float", ["ids-float", "not lists of token ids"]),
    (TRAIN + "--data ids-text", ["ids-text", "not lists of token ids"]),
    (TRAIN + "--data ids-missing", ["ids-missing", "did you mean 'inputs_ids'"]),
    (TRAIN + "--data ids-null", ["ids-null", "missing"]),
    (TRAIN + "--data no-tokenizer", ["no-tokenizer", "tokenizer"]),
    (TRAIN + "--data damaged-cut", ["damaged-cut"]),
    (TRAIN + "--data damaged-state", ["damaged-state"]),
    (TRAIN + "--data damaged-metadata", ["damaged-metadata", "elf_data.json"]),
    (TRAIN + "--data damaged-tokenizer", ["damaged-tokenizer", "tokenizer"]),
    (TRAIN + "--data damaged-dict", ["damaged-dict", "dataset_dict.json"]),
    ("train --task toy-de-em --data data -o new", ["toy-de-em", "did you mean 'toy-de-en'"]),
    (DATA + "--model ELF-BB", ["ELF-BB", "did you mean 'ELF-B'"]),
    (DATA + "--steps -5", ["-5"]),
    (DATA + "--steps 0", ["steps", "0"]),
    (DATA + "--steps 1.5", ["--steps"]),
    (DATA + "--steps 99999999999999999", ["steps"]),
    (DATA + "--steps 5000000000", ["steps"]),
    (DATA + "--lr nan", ["lr"]),
    (DATA + "--lr -1", ["lr"]),
    (DATA + "--lr inf", ["lr"]),
    (DATA + "--epochs 0", ["epochs"]),
    (DATA + "--batch-size 100000", ["100000", "batch"]),
    (DATA + "--seed 99999999999999999999", ["seed"]),
    (DATA + "--seed 5000000000", ["seed"]),
    (DATA + "-s sede=1", ["sede", "did you mean 'seed'"]),
    (DATA + "-s seed", ["seed"]),
    (DATA + "-s =1", ["--set"]),
    (DATA + "-s hidden_size=33", ["hidden_size"]),
    (DATA + "-s max_length=9999999999", ["max_length"]),
    (DATA + "-s max_length=4 -s max_input_length=8", ["max_input_length"]),
    (DATA + "-s hidden_size=100000000000 -s num_heads=2", ["hidden_size"]),
    (DATA + "-s depth=1000000000000", ["depth"]),
    (DATA + "-s encoder_model_name=t5", ["t5"]),
    (DATA + "-s encoder_model_name=folder", ["folder", "config.json"]),
    (DATA + "-s encoder_model_name=t5 -s encoder_checkpoint=encoder.pkl", ["t5"]),
    (DATA + "-s tokenizer_name=folder", ["folder", "tokenizer"]),
    (DATA + "-s eval_data_path=nowhere/at/all -s online_eval=true", ["nowhere/at/all"]),
    (DATA + "-s init_from=nowhere", ["nowhere"]),
    (DATA + "-s init_from=run", ["run"]),
    (DATA + "-s tracker=wandbb", ["tracker"]),
    (DATA + "-c gone.toml", ["gone.toml", "no such file"]),
    (DATA + "-c folder", ["folder"]),
    (DATA + "-c run/config.toml --task toy-text", ["toy-text"]),
    ("train --task toy-de-en --data data -s batch_size=8 -o full", ["full", "--output"]),
    ("train --task toy-de-en --data data -o good.txt", ["good.txt", "--output"]),
    ("train --task toy-de-en --data data -o good.txt/new", ["good.txt"]),
    ("train --task toy-de-en --data data -o run", ["run", "elf resume run"]),
    ("train --task toy-de-en --data data -o /proc/new", ["/proc/new"]),
    # resume
    ("resume", ["RUN"]),
    ("resume gone", ["gone", "no such folder"]),
    ("resume good.txt", ["good.txt"]),
    ("resume folder", ["folder", "config.toml"]),
    ("resume bad-config", ["bad-config/config.toml:2", "TOML"]),
    ("resume bad-weights -s steps=9", ["bad-weights/checkpoints/3/", "bytes", "nothing was changed"]),
    ("resume bad-metrics -s steps=9", ["bad-metrics", "metrics.jsonl"]),
    ("resume bad-environment -s steps=9", ["bad-environment", "environment.json"]),
    ("resume file-checkpoints -s steps=9", ["file-checkpoints", "checkpoints"]),
    ("resume run -s steps=-1", ["steps"]),
    ("resume run -s nothing=1", ["nothing"]),
    ("resume run -s hidden_size=32", ["hidden_size"]),
    ("resume run -s minutes=5", ["minutes", "--set steps="]),
    ("resume run -s data_path=nowhere/at/all", ["nowhere/at/all"]),
    # sample
    ("sample --checkpoint gone", ["gone", "no such checkpoint"]),
    ("sample --checkpoint folder", ["folder", "no checkpoint"]),
    ("sample --checkpoint no-checkpoint", ["no-checkpoint", "no checkpoint"]),
    ("sample --checkpoint file-checkpoints", ["file-checkpoints", "no checkpoint"]),
    ("sample --checkpoint bad-config", ["bad-config"]),
    ("sample --checkpoint bad-weights", ["bad-weights"]),
    ("sample --checkpoint checkpoint_5 --task owt", ["checkpoint_5", "damaged"]),
    ("sample --checkpoint weights.safetensors --task owt", ["weights.safetensors"]),
    ("sample --checkpoint absurd.safetensors --task owt", ["absurd.safetensors"]),
    ("sample --checkpoint other.safetensors --task owt", ["other.safetensors"]),
    ("sample --checkpoint weights.pt --task owt", ["weights.pt"]),
    ("sample --checkpoint code.pt --task owt", ["code.pt"]),
    ("sample --checkpoint good.txt --task owt", ["good.txt"]),
    ("sample --checkpoint some/hubname", ["some/hubname"]),
    ("sample --checkpoint ELF-B-owt", ["ELF-B-owt"]),
    ("sample --checkpoint ''", ["--checkpoint"]),
    (SAMPLE + "--at-step 77", ["77", "there are"]),
    (SAMPLE + "--at-step -1", ["-1"]),
    (SAMPLE + "--steps 0", ["--steps"]),
    (SAMPLE + "--steps -3", ["--steps"]),
    (SAMPLE + "--steps 99999999999", ["--steps"]),
    (SAMPLE + "--sampler odee", ["--sampler", "did you mean 'ode'"]),
    (SAMPLE + "--time-schedule unifrm", ["--time-schedule", "did you mean 'uniform'"]),
    (SAMPLE + "--gamma -1", ["--gamma"]),
    (SAMPLE + "--gamma nan", ["--gamma"]),
    (SAMPLE + "--gamma 1", ["--gamma", "--sampler sde"]),
    (SAMPLE + "--resample-noise", ["--resample-noise", "--sampler refine"]),
    (SAMPLE + "--sampler refine --time-schedule uniform", ["--time-schedule", "t = 0"]),
    (SAMPLE + "--time-shift 2", ["--time-shift", "--time-schedule shifted"]),
    (SAMPLE + "--cfg nan", ["--cfg", "nan"]),
    (SAMPLE + "--sc-cfg inf", ["--sc-cfg", "inf"]),
    (SAMPLE + "--num-samples 0", ["--num-samples"]),
    (SAMPLE + "--batch-size 0", ["--batch-size"]),
    (SAMPLE + "--seed -1", ["--seed"]),
    (SAMPLE + "--seed 99999999999999999999", ["seed"]),
    (SAMPLE + "--input gone.jsonl", ["gone.jsonl"]),
    (SAMPLE + "--input folder", ["folder"]),
    (SAMPLE + "--input empty.jsonl", ["empty.jsonl"]),
    (SAMPLE + "--input binary.jsonl", ["binary.jsonl:1"]),
    (SAMPLE + "--input broken.jsonl", ["broken.jsonl:2"]),
    (SAMPLE + "--input nokey.jsonl", ["nokey.jsonl:1", "'input'"]),
    (SAMPLE + "--input null.jsonl", ["null.jsonl:1", "'input'"]),
    (SAMPLE + "--input good.jsonl --source-key inptu", ["good.jsonl:1", "'inptu'", "did you mean 'input'"]),
    (SAMPLE + "--source-key input", ["--source-key", "--input"]),
    (SAMPLE + "--data nowhere/at/all", ["nowhere/at/all"]),
    (SAMPLE + "--data ids-missing", ["ids-missing"]),
    (SAMPLE + "--data ids-large", ["ids-large"]),
    (SAMPLE + "-o samples.jsonl", ["samples.jsonl exists"]),
    (SAMPLE + "-o folder --overwrite", ["folder"]),
    (SAMPLE + "-o link.jsonl --overwrite", ["link.jsonl"]),
    (SAMPLE + "-o good.txt/new.jsonl", ["good.txt"]),
    (SAMPLE + "-o /proc/new.jsonl", ["/proc/new.jsonl"]),
    (SAMPLE + "-o /dev/full --overwrite", ["/dev/full"]),
    (SAMPLE + "-s hidden_size=32", ["hidden_size"]),
    (SAMPLE + "-s sampling=1", ["sampling"]),
    (SAMPLE + "-c sampler.yaml", ["sampler.yaml:1", "did you mean 'ode'"]),
    (SAMPLE + "--task owtt", ["owtt", "did you mean 'owt'"]),
    # eval
    ("eval --checkpoint gone", ["gone"]),
    ("eval --checkpoint no-checkpoint", ["no-checkpoint"]),
    (EVAL + "--num-samples 0", ["--num-samples"]),
    (EVAL + "--data folder", ["folder"]),
    (EVAL + "--json folder", ["folder", "--json"]),
    (EVAL + "--json samples.jsonl", ["samples.jsonl exists", "--overwrite"]),
    (EVAL + "--json link.jsonl --overwrite", ["link.jsonl", "--json"]),
    (EVAL + "--json good.txt/x.json", ["good.txt"]),
    (EVAL + "--output good.txt", ["good.txt", "--output"]),
    (EVAL + "--output good.txt/new", ["good.txt"]),
    (EVAL + "--output /proc/new", ["/proc/new"]),
    (EVAL + "-s metrics=[]", ["metrics"]),
    (EVAL + '-s metrics=["bleuu"]', ["metrics", "'bleu'"]),
    (EVAL + '-s max_input_length=0 -s metrics=["ppl","bleu"] -s eval_ppl_model=gpt', ["gpt"]),
    (EVAL + '-s max_input_length=0 -s metrics=["bleu"]', ["metrics: bleu", "references", "ppl"]),
    (EVAL + '-s max_input_length=0 -s metrics=["rouge"]', ["metrics: rouge", "references", "ppl"]),
    (EVAL + '--data data -s metrics=["ppl"] -s eval_ppl_model=gpt', ["gpt"]),
    (EVAL + '--data data -s metrics=["ppl"] -s eval_ppl_model=nowhere/at/all', ["nowhere/at/all"]),
    # sweep
    ("sweep gone", ["gone"]),
    ("sweep folder", ["folder", "no checkpoint"]),
    ("sweep no-checkpoint", ["no-checkpoint"]),
    ("sweep bad-weights", ["bad-weights"]),
    ("sweep ''", ["--checkpoint"]),
    (SWEEP + "--steps 0", ["--steps", "'0'"]),
    (SWEEP + "--steps 4,x", ["--steps", "'x'"]),
    (SWEEP + "--steps 4,,8", ["--steps", "''"]),
    (SWEEP + "--steps ''", ["--steps", "''"]),
    (SWEEP + "--steps 4,99999999999999999999", ["--steps", "1,000,000"]),
    (SWEEP + "--steps 1.5", ["--steps", "1.5"]),
    (SWEEP + f"--steps {','.join(map(str, range(1, 50)))} --cfg {','.join(map(str, range(50)))}", ["2,450 settings"]),
    (SWEEP + "--sampler ode,sd", ["--sampler", "did you mean 'sde'"]),
    (SWEEP + "--gamma 1,-1", ["--gamma", "'-1'"]),
    (SWEEP + "--gamma nan", ["--gamma", "nan"]),
    (SWEEP + "--gamma 1,2", ["--gamma", "--sampler sde"]),
    (SWEEP + "--cfg 1,inf", ["--cfg", "inf"]),
    (SWEEP + "--w 1;3", ["--w", "1;3"]),
    (SWEEP + "--time-schedule unifrm", ["--time-schedule", "did you mean 'uniform'"]),
    (SWEEP + "--metrics bleuu", ["--metrics", "did you mean 'bleu'"]),
    (SWEEP + "--metrics ppl -s eval_ppl_model=gpt", ["gpt"]),
    (SWEEP + "-s max_input_length=0 --metrics rouge", ["metrics: rouge", "references", "ppl"]),
    (SWEEP + "-s metrics=[]", ["metrics"]),
    (SWEEP + "--configs gone.yaml", ["gone.yaml"]),
    (SWEEP + "--configs folder", ["folder"]),
    (SWEEP + "--configs good.toml", ["good.toml", "list of sampling settings"]),
    (SWEEP + "--configs sampler.yaml", ["sampler.yaml:1", "did you mean 'ode'"]),
    (SWEEP + "--configs sampler.yaml --steps 4", ["--configs", "--steps"]),
    (SWEEP + "-n 0", ["-n"]),
    (SWEEP + "--seed -1", ["--seed"]),
    (SWEEP + "--seeds 0,1,0", ["--seeds 0,1,0", " 0 "]),
    (SWEEP + "--seeds 0,x", ["--seeds 0,x", "'x'"]),
    (SWEEP + "--seed 3 --seeds 0,1", ["--seed and --seeds"]),
    (SWEEP + "--checkpoint run", ["two checkpoints", "run"]),
    (EVAL + "--seeds 1,1", ["--seeds 1,1", "twice"]),
    (SWEEP + "--batch-size 0", ["--batch-size"]),
    ("sweep run --data folder", ["folder"]),
    (SWEEP + "--json folder", ["folder", "--json"]),
    (SWEEP + "--json samples.jsonl", ["samples.jsonl exists", "--overwrite"]),
    (SWEEP + "--output good.txt", ["good.txt", "--output"]),
    (SWEEP + "--output good.txt/new", ["good.txt"]),
    (SWEEP + "--output /proc/new", ["/proc/new"]),
    (SWEEP + "--output full", ["full", "results.jsonl", "--output"]),
    (SWEEP + "--output full --overwrite", ["full", "results.jsonl", "--output"]),
    (SWEEP + "--output swept", ["swept/results.jsonl:1", "step 77, not 3", "--overwrite"]),
    (SWEEP + "--output bad-sweep", ["bad-sweep/results.jsonl:1", "--overwrite"]),
    # eval-bleu, eval-rouge, eval-ppl
    ("eval-bleu gone.jsonl", ["gone.jsonl"]),
    ("eval-bleu sample.jsonl", ["did you mean 'samples.jsonl'"]),
    ("eval-bleu folder", ["folder"]),
    ("eval-bleu empty.jsonl", ["empty.jsonl"]),
    ("eval-bleu binary.jsonl", ["binary.jsonl:1"]),
    ("eval-bleu latin.jsonl", ["latin.jsonl:1", "UTF-8"]),
    ("eval-bleu null.jsonl", ["null.jsonl:1", "'generated'"]),
    ("eval-bleu generatd.jsonl", ["generatd.jsonl:1", "did you mean 'generatd'"]),
    ("eval-bleu samples.jsonl --references two.txt", ["two.txt", "2 references for the 1 samples"]),
    ("eval-bleu samples.jsonl --references twice.jsonl", ["twice.jsonl:2", "twice"]),
    ("eval-bleu bare.jsonl", ["bare.jsonl:1: no 'reference'", "--references FILE"]),
    ("eval-bleu bare.jsonl --references split.jsonl", ["bare.jsonl:1", "split.jsonl:1", "another split"]),
    ("eval-ppl mixed.jsonl --model gpt", ["mixed.jsonl:2: id 0 is that of line 1", "two splits"]),
    ("eval-bleu samples.jsonl --references gone.txt", ["gone.txt"]),
    ("eval-bleu samples.jsonl --json folder", ["folder"]),
    ("eval-bleu samples.jsonl --json good.txt", ["good.txt exists"]),
    ("eval-bleu samples.jsonl --json /proc/new.json", ["/proc/new.json"]),
    ("eval-bleu samples.jsonl --protocol sacreblue", ["--protocol", "did you mean 'sacrebleu'"]),
    ("eval-rouge samples.jsonl --protocol sacrebleu", ["--protocol sacrebleu", "rouge is scored by auto or"]),
    ("eval-ppl samples.jsonl --protocol papr", ["--protocol", "did you mean 'paper'"]),
    ("eval-rouge deep.jsonl", ["deep.jsonl:1"]),
    ("eval-rouge samples.jsonl --references folder", ["folder"]),
    ("eval-rouge", ["F.jsonl"]),
    ("eval-ppl samples.jsonl --model folder", ["folder", "config.json"]),
    ("eval-ppl samples.jsonl --model gpt", ["gpt"]),
    ("eval-ppl samples.jsonl --model t5", ["t5"]),
    ("eval-ppl samples.jsonl --model small --tokenizer data/tokenizer", ["26 tokens", "small", " 20;"]),
    ("eval-ppl samples.jsonl --model shards --tokenizer data/tokenizer", ["model-00001-of-00002.safetensors"]),
    ("eval-ppl samples.jsonl --model some/hubname", ["some/hubname"]),
    ("eval-ppl samples.jsonl --model gpt --references gone.txt", ["gone.txt"]),
    ("eval-ppl samples.jsonl --max-length 1", ["--max-length"]),
    ("eval-ppl broken.jsonl --model gpt", ["broken.jsonl"]),
    # config
    ("config check", ["FILE"]),
    *(
        (f"config check {name} --devices 1", [where, *said])
        for name, where, *said in [
            ("gone.toml", "gone.toml"),
            ("folder", "folder"),
            ("unknown.toml", "unknown.toml:1", "did you mean 'seed'"),
            ("type.toml", "type.toml:1", "seed"),
            ("nan.toml", "nan.toml:1", "lr"),
            ("infinite.toml", "infinite.toml:1", "weight_decay"),
            ("negative.toml", "negative.toml:1", "steps"),
            ("huge.toml", "huge.toml:1", "batch_size"),
            ("syntax.toml", "syntax.toml:1"),
            ("large.toml", "large.toml", "larger"),
            ("deep.toml", "deep.toml"),
            ("double.toml", "double.toml:2"),
            ("settings.ini", "settings.ini", ".toml"),
            ("twice.yaml", "twice.yaml:2", "set twice"),
            ("tag.yaml", "tag.yaml:1", "tag"),
            ("deep.yaml", "deep.yaml"),
            ("bomb.yaml", "bomb.yaml"),
            ("scalar.yaml", "scalar.yaml:1"),
            ("tab.yaml", "tab.yaml:2"),
            ("binary.toml", "binary.toml"),
            ("latin.yaml", "latin.yaml:1", "UTF-8"),
        ]
    ),
    ("config show -c twice.yaml", ["twice.yaml:2"]),
    ("config show --format xml", ["--format"]),
    ("config show gone", ["gone: no such folder", "elf runs"]),
    ("config show folder", ["folder: ", "no config.toml", "elf runs"]),
    ("config show good.toml", ["good.toml: a file, not a run's folder"]),
    ("config check good.toml --devices 0", ["--devices"]),
    # export, push-to-hub
    ("export gone new", ["gone"]),
    ("export folder new", ["folder"]),
    ("export no-checkpoint new", ["no-checkpoint"]),
    ("export run full", ["full"]),
    ("export run full --overwrite", ["full"]),
    ("export run good.txt", ["good.txt"]),
    ("export run good.txt/new", ["good.txt"]),
    ("export run /proc/new", ["/proc/new"]),
    ("export run new --format elff", ["elff", "did you mean 'elf'"]),
    ("export run new --at-step 77", ["77"]),
    ("export bad-weights new", ["bad-weights"]),
    ("export weights.pt new", ["weights.pt"]),
    ("export run", ["DIR"]),
    ("push-to-hub gone some/name", ["gone"]),
    ("push-to-hub folder some/name", ["folder"]),
    ("push-to-hub run name/with/slashes", ["name/with/slashes"]),
    ("push-to-hub run ../name", ["../name"]),
    ("push-to-hub run some/name --checkpoints al", ["al", "did you mean 'all'"]),
    # distill
    ("distill -o new", ["--teacher"]),
    ("distill --teacher gone -o new", ["gone"]),
    ("distill --teacher no-checkpoint -o new", ["no-checkpoint"]),
    ("distill --teacher run -o full", ["full"]),
    ("distill --teacher run -o new --data data --rounds 6", ["rounds 6 does not divide the teacher's"]),
    ("distill --teacher run -o new --data data --rounds 8,x", ["--rounds 8,x"]),
    ("distill --teacher run -o new --objective mmd", ["distill_objective mmd is for free text", "progressive"]),
    (MMD + "-s self_cond_prob=0", ["without self-conditioning", "use progressive"]),
    (MMD + "-s sigma=0", ["sigma: expected a number (greater than 0)"]),
    (MMD + "-s feature_layer=99", ["feature_layer 99: the network has"]),
    (MMD + "-s kernel_pairs=texts -s kernel_texts=1", ["kernel_texts is 1"]),
    (MMD + "-s stage_steps=[1,2,3]", ["stage_steps [1, 2, 3]"]),
    (MMD + "--rounds 8", ["--rounds: --objective mmd"]),
    (MMD + "--objective ird", ["--objective ird"]),
    (MMD + "--objective mdm", ["did you mean 'mmd'"]),
    ("distill --teacher run -o new --data data --rounds 4,4", ["rounds", "[4, 4]"]),
    ("distill --teacher run -o new --data data --steps 0", ["--steps"]),
    ("distill --teacher run -o new --data data -s hidden_size=32 -s num_heads=2", ["hidden_size 32"]),
    ("distill --teacher run -o new --data data -s embedding_dim=5", ["latent_dim 5"]),
    ("sample --checkpoint run@round-4", ["run@round-4"]),
    ("train -o new --data data -s student_steps=4", ["without a teacher"]),
    # demo, tasks, elf
    ("demo -o full", ["full exists"]),
    ("demo -o good.txt", ["good.txt exists"]),
    ("demo -o good.txt/new", ["good.txt"]),
    ("demo -o /proc/new", ["/proc/new"]),
    ("demo --seed -1", ["--seed"]),
    ("demo --seed 99999999999999999999", ["seed"]),
    ("tasks --jso", ["--json"]),
    ("trian", ["trian", "Did you mean 'train'"]),
    ("--vers", ["--vers"]),
]  # fmt: skip

RUN_FAILED = ("bad-weights", "resume bad-metrics", "resume bad-environment", "resume file-checkpoints")
"""Not the user's input but a run that cannot go on: exit code 1."""


@pytest.mark.parametrize(("command", "said"), CASES, ids=[command for command, _ in CASES])
def test_bad_input_is_one_line_and_changes_nothing(elf, world, before, command, said):
    code, _, err = elf(shlex.split(command) if "metrics" not in command else command.split())
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, err
    assert "Traceback" not in err and not errors[0].startswith("error: unexpected"), err
    assert [text for text in said if text not in errors[0]] == [], err
    assert err.splitlines()[-1] == errors[0] and len(errors[0]) < 1000
    assert code == (1 if any(part in command for part in RUN_FAILED) else 2), err
    after = tree(world)
    shutil.rmtree(world / "new", ignore_errors=True)
    changed = {k: after.get(k) for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
    before.clear(), before.update(tree(world) if changed else after)  # one failure is enough
    assert changed == {}
