"""What is between a file and its tokens: unknown characters, white space and special tokens written in the text."""

import json
import re

import pytest
from helpers import GPT2_TOKENIZER, T5

from elfcli.corpus.tokenize import Job, tokenize
from elfcli.data.folder import load_examples
from elfcli.data.plain_text import LossFinder, keeps_whitespace, plain_encoder
from elfcli.data.tokenizers import decoded, eos_id, load_tokenizer, pad_id
from elfcli.errors import InputError

TAGS = "The tag `</s>` ends a sequence, `<pad>` fills it, <extra_id_3> stands for words"
CODE = "def f(x):\n    if x:\n\treturn  1\n\n"


@pytest.fixture(scope="module")
def t5():
    if not T5.is_dir():
        pytest.skip("the shared T5 vocabulary is missing")
    return load_tokenizer(T5)


@pytest.fixture(scope="module")
def gpt2():
    if not GPT2_TOKENIZER.is_dir():
        pytest.skip("the shared tokenizers are missing")
    return load_tokenizer(GPT2_TOKENIZER)


def jsonl(path, texts, key="text"):
    path.write_text("".join(json.dumps({key: text}) + "\n" for text in texts))
    return path


# --- 1: characters that the vocabulary lacks ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "unknown", "lost"),
    [
        ("你好。", 1, {"你": 1, "好": 1, "。": 1}),  # one token for all of them
        ("{x} ~", 3, {"{": 1, "}": 1, "~": 1}),
        ("déjà vu {", 1, {"{": 1}),
        ("日本 and 日", 2, {"日": 2, "本": 1}),
        ("plain words", 0, {}),
    ],
)
def test_lost_characters_are_counted(t5, text, unknown, lost):
    rows = plain_encoder(t5)([text])
    losses = LossFinder(t5).losses([text], rows, checked=1)
    assert (losses.unknown, dict(losses.lost)) == (unknown, lost)
    assert losses.changed == bool(unknown)


def test_too_many_unknown_tokens_are_refused_by_side(tmp_path, elf, t5):
    lines = [{"source": "你好", "target": f"good {n}"} for n in range(30)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ["--input", path, "--tokenizer", T5, "--output", tmp_path / "d"]
    code, _, err = elf("tokenize", *options)
    assert code == 2 and not (tmp_path / "d").exists()
    assert err.splitlines()[-1] == (
        "error: train, source: the tokenizer does not know 30 of 60 tokens (50.00%) and loses 60 of 60 characters: "
        "'你' (30), '好' (30); choose another --tokenizer or --train-tokenizer SIZE, or pass --allow-unknown"
    )
    code, out, err = elf("tokenize", *options, "--allow-unknown")
    assert code == 0 and "warning: train, source" in err and "train, target" not in err
    assert [row.split()[-2:] for row in out.splitlines()[2:4]] == [["50.00%", "100.0%"], ["0.00%", "0.0%"]]
    losses = json.loads((tmp_path / "d" / "elf_data.json").read_text())["splits"]["train"]["losses"]
    assert losses["condition_input_ids"]["unknown_tokens"] == 30 and losses["condition_input_ids"]["lost"]["你"] == 30
    assert load_examples(tmp_path / "d").tokens[0]["condition_input_ids"].tolist() == [3, 2]


def test_ten_characters_are_named_in_order(tmp_path, t5, capsys):
    texts = [f"a long text of many known words with {mark} in it" for mark in "~{}^\\`<µ☃日本"] + ["and ~ in the end"]
    tokenize(Job(tmp_path / "d", (str(jsonl(tmp_path / "a.jsonl", texts)),), tokenizer=str(T5), allow_unknown=True))
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("warning"))
    assert line.count("(1)") == 9 and "'~' (2), '<' (1)" in line and "'本'" not in line


def test_a_vocabulary_of_words_names_words(t5, tmp_path):
    words = tokenize(Job(tmp_path / "d", task="toy-text")).output / "tokenizer"
    tokenizer = load_tokenizer(words)
    text = "the xylophone of the xylophone"
    assert set(LossFinder(tokenizer).losses([text], plain_encoder(tokenizer)([text]), 0).lost) >= {"xylophone"}


# --- 2: white space --------------------------------------------------------------------------------------------------


def test_texts_that_do_not_come_back_are_counted(tmp_path, elf, t5):
    path = jsonl(tmp_path / "a.jsonl", [CODE, "plain words", "two  spaces", "½ is changed"])
    code, out, _ = elf("tokenize", "-i", path, "--tokenizer", T5, "-o", tmp_path / "d")
    assert code == 0 and out.splitlines()[2].split()[-1] == "75.0%"
    assert "changed: 3 of 4 texts checked" in out and "2 of them only in white space; --train-tokenizer" in out


@pytest.mark.parametrize("text", [CODE, "  leading\tand trailing \r\n", "a\n\n\n\tb    c \n "])
def test_keep_whitespace_keeps_it(tmp_path, text):
    path = jsonl(tmp_path / "a.jsonl", [text, *(f"for i in {n}:\n    print({n})\n" for n in range(50))])
    job = Job(tmp_path / "d", (str(path),), train_tokenizer=140, keep_whitespace=True)
    split = tokenize(job).splits["train"]
    assert split.losses["input_ids"].changed == text.count("\r")  # the only unknown character
    tokenizer = load_tokenizer(tmp_path / "d" / "tokenizer")
    ids = load_examples(tmp_path / "d").tokens[0]["input_ids"].tolist()
    for clean_up in (False, True):  # as samples are decoded
        assert decoded(tokenizer, [ids], clean_up) == [text.replace("\r", "")]
    assert keeps_whitespace(tokenizer) and (pad_id(tokenizer), eos_id(tokenizer)) == (0, 1)


def test_lines_keep_their_indentation_if_the_tokenizer_does(tmp_path, gpt2):
    (tmp_path / "a.txt").write_text("  two\n\tone \n\n")
    tokenize(Job(tmp_path / "d", (str(tmp_path / "a.txt"),), tokenizer=str(GPT2_TOKENIZER)))
    examples = load_examples(tmp_path / "d")
    assert [examples.texts(row)["text"] for row in (0, 1)] == ["  two", "\tone "]
    assert decoded(gpt2, [examples.tokens[1]["input_ids"].tolist()], False) == ["\tone "]


def test_keep_whitespace_is_for_training(tmp_path):
    with pytest.raises(InputError, match="--train-tokenizer"):
        tokenize(Job(tmp_path / "d", ("a.txt",), keep_whitespace=True))


# --- 3: special tokens written in the text ---------------------------------------------------------------------------


@pytest.mark.parametrize("text", [TAGS, "</s>", "a<pad>b <extra_id_0><extra_id_99></s>"])
def test_special_tokens_in_a_text_are_characters(t5, text):
    (ids,) = plain_encoder(t5)([text])
    assert not set(ids) & (set(t5.all_special_ids) - {t5.unk_token_id})
    assert decoded(t5, [ids], False) == [re.sub("[<`]", "", text)]  # T5 lacks these


@pytest.mark.parametrize("text", ["a <|endoftext|> b", "<|endoftext|>", TAGS])
def test_special_tokens_of_bpe_in_a_text_are_characters(gpt2, text):
    (ids,) = plain_encoder(gpt2)([text])
    assert gpt2.eos_token_id not in ids and decoded(gpt2, [ids], False) == [text]


def test_other_texts_have_the_same_tokens(t5, gpt2):
    texts = ["Ein Hund, der bellt.", "  x\n\ty ", "½ naïve 12,000", "", CODE]
    for tokenizer in (t5, gpt2):
        assert plain_encoder(tokenizer)(texts) == tokenizer(texts, add_special_tokens=False)["input_ids"]


def test_special_tokens_of_sentencepiece_in_a_text_are_characters(shared):
    """Tokenizers without the Rust backend."""
    from transformers import ByT5Tokenizer
    from transformers.models.bert_generation.tokenization_bert_generation import BertGenerationTokenizer

    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    for tokenizer in (BertGenerationTokenizer(str(shared / "t5-mini" / "spiece.model"), **special), ByT5Tokenizer()):
        assert not tokenizer.is_fast
        (ids,) = plain_encoder(tokenizer)(["words </s> and <pad> tags"])
        assert not set(ids) & {tokenizer.eos_token_id, tokenizer.pad_token_id}
        assert decoded(tokenizer, [ids], False) == ["words </s> and <pad> tags"]


def test_special_tokens_that_merges_would_form(tmp_path):
    """Some files of Llama have the pieces `</` and `s>`, and a merge of both to the end token."""
    from tokenizers import AddedToken, Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "<": 3, "/": 4, "s": 5, ">": 6, "</": 7, "s>": 8}
    merges = [("<", "/"), ("s", ">"), ("</", "s>"), ("<", "s>")]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    backend.add_special_tokens([AddedToken(token, special=True) for token in ("<unk>", "<s>", "</s>")])
    backend.add_tokens(["<kept>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    assert plain_encoder(tokenizer)(["</s><s>", "<kept>"]) == [[7, 8, 3, 8], [9]]


# --- 9: tokenizers without a pad token -------------------------------------------------------------------------------


def test_without_a_pad_token_texts_are_padded_with_eos(tmp_path, elf, gpt2):
    assert gpt2.pad_token_id is None and pad_id(gpt2) == eos_id(gpt2) == 50256
    path = jsonl(tmp_path / "a.jsonl", ["one text", "another"])
    code, _, err = elf("tokenize", "-i", path, "--tokenizer", GPT2_TOKENIZER, "-o", tmp_path / "d")
    assert code == 0, err
    assert json.loads((tmp_path / "d" / "elf_data.json").read_text())["pad_id"] == 50256
