"""Makes the folders next to it: tiny random encoders, and what transformers computes with them.

Needs PyTorch and transformers 5, which the tests do not: `python tests/goldens/encoders/make.py`. The files are
those that people's repositories hold: whole models, as safetensors or as PyTorch wrote them over the years.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers as tf

HERE = Path(__file__).parent
VOCAB, WIDTH, LENGTH = 40, 16, 14
T5 = dict(vocab_size=VOCAB, d_model=WIDTH, d_kv=8, d_ff=24, num_layers=2, num_decoder_layers=1, num_heads=2,
          feed_forward_proj="gated-gelu", decoder_start_token_id=0,
          relative_attention_num_buckets=8, relative_attention_max_distance=12)  # fmt: skip
GEMMA = dict(vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=12, max_position_embeddings=32)  # fmt: skip
VISION = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8,
              patch_size=4)  # fmt: skip


def t5gemma2() -> torch.nn.Module:
    text = GEMMA | dict(sliding_window=5, layer_types=["sliding_attention", "sliding_attention", "full_attention"])
    text["rope_parameters"] = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                               "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}  # fmt: skip
    encoder = dict(text_config=text, vision_config=VISION, mm_tokens_per_image=1, eoi_token_index=VOCAB - 1)
    config = tf.T5Gemma2Config(encoder=encoder, decoder=text | dict(num_hidden_layers=3))
    return tf.T5Gemma2ForConditionalGeneration(config)


def t5gemma() -> torch.nn.Module:
    stack = GEMMA | dict(sliding_window=3, attn_logit_softcapping=2.0)
    decoder = stack | dict(num_hidden_layers=1, cross_attention_hidden_size=WIDTH)
    return tf.T5GemmaForConditionalGeneration(tf.T5GemmaConfig(encoder=stack, decoder=decoder, vocab_size=VOCAB))


KINDS = {
    "t5_v1_1": lambda: tf.T5ForConditionalGeneration(tf.T5Config(**T5, tie_word_embeddings=False)),
    "byt5": lambda: tf.T5ForConditionalGeneration(tf.T5Config(**T5 | dict(vocab_size=384), tie_word_embeddings=False)),
    "mt5": lambda: tf.MT5ForConditionalGeneration(tf.MT5Config(**T5, tie_word_embeddings=False)),
    "umt5": lambda: tf.UMT5ForConditionalGeneration(tf.UMT5Config(**T5, tie_word_embeddings=False)),
    "t5gemma": t5gemma,
    "t5gemma2": t5gemma2,
    "gpt2": lambda: tf.GPT2LMHeadModel(
        tf.GPT2Config(vocab_size=VOCAB, n_positions=16, n_embd=WIDTH, n_layer=2, n_head=2)
    ),
}
DTYPES = {"byt5": torch.float16, "t5_v1_1": torch.bfloat16}


def save_bin(folder: Path, kind: str, state: dict) -> None:
    """Write the weights as mT5's repositories have them (one file), as older ones do, or in two files."""
    if kind == "t5_v1_1":
        names = sorted(state)
        place = {name: f"pytorch_model-0000{1 + n % 2}-of-00002.bin" for n, name in enumerate(names)}
        for file in set(place.values()):
            torch.save({name: state[name] for name in names if place[name] == file}, folder / file)
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": place}))
    else:
        torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=kind != "byt5")


for number, (kind, make) in enumerate(KINDS.items()):
    torch.manual_seed(number)
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # also those that begin as zeros or ones
            parameter.copy_((parameter + 0.3 * torch.randn_like(parameter)).to(DTYPES.get(kind, torch.float32)))
    model.tie_weights()
    folder = HERE / kind
    shutil.rmtree(folder, ignore_errors=True)
    model.config._attn_implementation = "eager"
    generator = np.random.default_rng(number)
    ids = generator.integers(1, VOCAB, (2, LENGTH))
    ids[1, 3] = VOCAB - 1
    mask = np.ones((2, LENGTH), bool)
    mask[0, LENGTH - 4 :] = False
    network = model.transformer if kind == "gpt2" else model.get_encoder()
    with torch.no_grad():
        out = network(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long()).last_hidden_state
    if kind in ("t5_v1_1", "byt5", "mt5"):
        folder.mkdir()
        model.config.save_pretrained(folder)
        save_bin(folder, kind, model.to(DTYPES.get(kind, torch.float32)).state_dict())
    else:
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        (folder / "model.safetensors").chmod(0o644)
    np.savez_compressed(folder / "expected.npz", ids=ids.astype(np.int32), mask=mask, out=out.numpy())
