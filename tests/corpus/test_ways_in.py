"""Every file that people have: tables of all kinds, encodings, compression, two files of lines, addresses, the Hub."""

import bz2
import gzip
import json
import lzma
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from elfcli.corpus.fetch import is_remote, local_files
from elfcli.corpus.files import Layout, layout_of
from elfcli.corpus.readers import open_corpus, open_parallel
from elfcli.corpus.tokenize import Job, tokenize
from elfcli.data.folder import load_examples
from elfcli.errors import InputError

PAIRS = [(f"Satz {n}", f"line {n}") for n in range(3)]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path, keys=(), skip_bad=False, **layout):
    return list(open_corpus([str(path)], keys, skip_bad, Layout(**layout)))


# --- 4: tables ------------------------------------------------------------------------------------------------------

QUOTES = ['"Ich komme', "er kam", 'sie kam"', '"Nein", sagte er.', 'a "b" c', '""', "'s"]


def test_quotes_in_a_tsv_are_characters(tmp_path):
    rows = [(text, str(place)) for place, text in enumerate(QUOTES)]
    path = write(tmp_path / "a.tsv", "source\ttarget\n" + "".join(f"{a}\t{b}\n" for a, b in rows))
    assert read(path) == rows


def test_quoting_is_an_option(tmp_path):
    quoted = write(tmp_path / "a.tsv", 'source\ttarget\n"two\nlines"\t"a ""b"""\n')
    assert read(quoted, quoting="csv") == [("two\nlines", 'a "b"')]
    with pytest.raises(InputError, match=r"a.tsv:2: 1 fields.* 2; if its fields are quoted, pass --quoting csv"):
        read(quoted)
    plain = write(tmp_path / "a.csv", 'source,target\n"Nein, er\n')
    assert read(plain, quoting="none") == [('"Nein', " er")]
    torn = write(tmp_path / "b.csv", 'source,target\n"Nein" er,b\n')
    with pytest.raises(InputError, match=r"not CSV: .*--quoting none"):
        read(torn)


def test_lines_that_are_no_documents_are_explained(tmp_path, elf):
    rows = "text,id\n" + '"two\nlines",1\nplain,2\n\n' * 10
    path = write(tmp_path / "a.csv", rows)
    code, out, _ = elf("tokenize", "-i", path, "--train-tokenizer", "14", "-o", tmp_path / "d")
    assert code == 0 and "train: lines inside quoted fields: 10\n" in out and "train: blank lines: 10\n" in out
    path = write(tmp_path / "b.tsv", "text\tid\n" + '"quoted text"\t1\nplain text\t2\n' * 10)
    out = elf("tokenize", "-i", path, "--train-tokenizer", "18", "-o", tmp_path / "e", "--allow-unknown")[1]
    assert 'train: rows with a field in "...", whose quotes are kept (--quoting csv removes them): 10\n' in out


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "de;en\nein;a\n", r"'de;en'|de;en; if ';' separates columns, pass --separator ';'"),
        ("a.csv", "de\ten\nein\ta\n", "if tab separates columns, pass --separator tab"),
        ("a.tsv", "de,en\nein,a\n", "if ',' separates columns, pass --separator ','"),
        (
            "a.tsv",
            "Guten Tag.\tGood day.\nJa.\tYes.\n",
            "look like data; .*--no-header .*--source-key 1 --target-key 2",
        ),
        ("a.csv", "Ein ganzer Satz\nund noch einer\n", "look like data; .*--no-header .*--text-key 1"),
        ("a.tsv", "Hund\tdog\nJa\tyes\n", "if this line is data, pass --no-header"),
        ("a.txt", "eins\n".encode("utf-16"), "byte-order mark of UTF-16; pass --encoding utf-16"),
        ("a.csv", "text\neins\n".encode("utf-16-be"), "zero byte.*--encoding utf-16-be"),
        ("a.txt", "schön\n".encode("cp1252"), "not UTF-8 at byte 4; --encoding reads another"),
        ("a.txt", b"\xef\xbb\xbf", "a.txt holds a byte-order mark and nothing else"),
        ("a.csv", b"\xef\xbb\xbf\n", "a.csv holds a byte-order mark and nothing else"),
    ],
)
def test_a_line_says_what_was_found_and_which_option_reads_it(tmp_path, name, content, said):
    with pytest.raises(InputError, match=said) as caught:
        read(write(tmp_path / name, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "layout", "expected"),
    [
        ("a.csv", 'source;target\n"ein;s";a\n', {"separator": ";"}, [("ein;s", "a")]),
        (
            "a.csv",
            "Guten Tag.,Good day.\nJa.,Yes.\n",
            {"header": False},
            [("Guten Tag.", "Good day."), ("Ja.", "Yes.")],
        ),
        ("a.txt", "Ja.\tYes.\n", {"header": False, "separator": "\t"}, [("Ja.", "Yes.")]),
        ("a.txt", "eins\nzwei\n".encode("utf-16"), {"encoding": "utf-16"}, [("eins",), ("zwei",)]),
        ("a.csv", "source,target\r\nein,a\r\n".encode("utf-16-le"), {"encoding": "utf-16-le"}, [("ein", "a")]),
        ("a.txt", "schön\n".encode("cp1252"), {"encoding": "cp1252"}, [("schön",)]),
        ("a.csv", "\ufefftext,id\neins,1\n", {}, [("eins",)]),
        ("a.txt", "\ufeffeins\n\ufeffzwei\n", {}, [("eins",), ("zwei",)]),  # two files that were joined
        ("a.csv", "a,b\nx,y\n", {"header": False}, [("a", "b"), ("x", "y")]),
    ],
)
def test_the_options_read_it(tmp_path, name, content, layout, expected):
    assert read(write(tmp_path / name, content), **layout) == expected


def test_columns_of_the_same_name_are_kept_apart(tmp_path):
    path = write(tmp_path / "a.csv", "text,text\na,b\n")
    with pytest.raises(InputError, match=r"text \(1\), text \(2\)"):
        read(path, ("text",))
    assert read(path, ("text (2)",)) == [("b",)]


def test_lines_that_all_hold_tabs_are_named(tmp_path, capsys):
    write(tmp_path / "a.txt", "Ja.\tYes.\tnote\nNein.\tNo.\tnote\n")
    assert read(tmp_path / "a.txt") == [("Ja.\tYes.\tnote",), ("Nein.\tNo.\tnote",)]
    assert "all hold tabs; if they are 3 columns, pass --separator tab --no-header" in capsys.readouterr().err
    assert read(tmp_path / "a.txt", ("1", "2"), header=False, separator="\t") == [("Ja.", "Yes."), ("Nein.", "No.")]
    anki = write(tmp_path / "anki.txt", "#separator:tab\n#html:true\nJa.\tYes.\n")
    read(anki)
    assert "all hold tabs; if they are 2 columns" in capsys.readouterr().err
    assert read(anki, header=False, separator="\t") == [("Ja.", "Yes.")]
    write(tmp_path / "a.txt", "Ja.\tYes.\nno tab\n")
    read(tmp_path / "a.txt")
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((";;", None, False, None), "--separator ';;'"),
        ((None, "all", False, None), "--quoting all: expected csv or none"),
        ((None, None, False, "utf-99"), "--encoding utf-99"),
    ],
)
def test_wrong_layouts(options, said):
    with pytest.raises(InputError, match=said):
        layout_of(*options)


def test_tables_alone_have_separators(tmp_path):
    with pytest.raises(InputError, match=r"a.jsonl: --separator, .* are for CSV"):
        read(write(tmp_path / "a.jsonl", '{"text": "x"}\n'), separator=";")


# --- 8: ways in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sides", [("train.de", "train.en"), ("a.src.xz", "b.tok.gz"), ("x", "y.txt")])
def test_two_files_that_belong_together(tmp_path, sides):
    content = ["".join(f"{pair[side]}\n" for pair in [*PAIRS, ("", "")]).encode() for side in (0, 1)]
    files = [write(tmp_path / name, compressed(name, data)) for name, data in zip(sides, content, strict=True)]
    corpus = open_parallel(*([str(file)] for file in files), False)
    assert list(corpus) == PAIRS and corpus.reading.notes == {"blank lines": 1}
    write(files[1], compressed(sides[1], content[1] + b"one more\n"))
    with pytest.raises(InputError, match=rf"{sides[0]} has 4 lines, but .*{sides[1]} has 5"):
        open_parallel(*([str(file)] for file in files), False)


def test_a_bad_line_of_one_file_has_no_pair(tmp_path):
    source, target = (
        write(tmp_path / "a.de", "eins\n\nzwei\ndrei\n"),
        write(tmp_path / "a.en", b"one\nx\n\xff\nthree\n"),
    )
    with pytest.raises(InputError, match=r"a.de:2: 'source' is empty"):
        list(open_parallel([str(source)], [str(target)], False))
    corpus = open_parallel([str(source)], [str(target)], True)
    assert list(corpus) == [("eins", "one"), ("drei", "three")] and corpus.reading.bad == 2


def test_two_files_by_the_command(tmp_path, elf):
    for name in ("train", "held"):
        for side, ending in enumerate(("de", "en")):
            write(tmp_path / f"{name}.{ending}", "".join(f"{pair[side]}\n" for pair in PAIRS))
    sides = ["--source", tmp_path / "train.de", "--target", tmp_path / "train.en"]
    held = ["--validation-source", tmp_path / "held.de", "--validation-target", tmp_path / "held.en"]
    code, out, err = elf("tokenize", *sides, *held, "--train-tokenizer", "16", "-o", tmp_path / "d")
    assert code == 0 and "'source' -> 'target'" in out and "validation: 3 of 3 documents are also in train" in out, err
    assert load_examples(tmp_path / "d").texts(2) == {"input": "Satz 2", "reference": "line 2"}
    metadata = json.loads((tmp_path / "d" / "elf_data.json").read_text())
    assert [one["name"] for one in metadata["splits"]["train"]["sources"]] == ["train.de", "train.en"]


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"sources": ("a.de",)}, "--source and --target belong together"),
        ({"sources": ("a.de",), "targets": ("a.en",), "inputs": ("a.txt",)}, "replace --input"),
        ({"sources": ("a.de",), "targets": ("a.en",), "source_key": "de", "target_key": "en"}, "have no columns"),
        ({"sources": ("a.jsonl",), "targets": ("a.jsonl",)}, "read lines; pass it as --input"),
    ],
)
def test_contradictions_of_two_files(tmp_path, monkeypatch, job, said):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", "{}\n")
    with pytest.raises(InputError, match=said):
        tokenize(Job(tmp_path / "d", **job))


@pytest.mark.parametrize(
    ("record", "keys"),
    [
        ({"translation": {"de": "Satz", "en": "line"}}, ("translation.de", "translation.en")),
        ({"a": {"b": {"c": "Satz"}}, "d": "line"}, ("a.b.c", "d")),
        ({"x.y": "Satz", "z": {"w": "line"}}, ("x.y", "z.w")),
    ],
)
def test_keys_with_dots_are_fields_of_objects(tmp_path, record, keys):
    path = write(tmp_path / "a.jsonl", json.dumps(record) + "\n")
    assert read(path, keys) == [("Satz", "line")]
    pyarrow.parquet.write_table(pa.Table.from_pylist([record]), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", keys) == [("Satz", "line")]


def test_the_suggested_key_is_one_that_works(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"translation": {"de": "x", "en": "y"}}\n')
    suggestion = (
        r"no column 'translation' \(did you mean 'translation\.\w\w'\?\): its columns are translation.de, trans"
    )
    with pytest.raises(InputError, match=suggestion):
        read(path, ("translation", "translation.en"))


def compressed(name, data):
    endings = {
        ".gz": gzip.compress,
        ".xz": lzma.compress,
        ".bz2": bz2.compress,
        ".zst": partial(pa.compress, codec="zstd"),
    }
    packed = next((pack(data) for ending, pack in endings.items() if name.endswith(ending)), data)
    return packed if isinstance(packed, bytes) else packed.to_pybytes()


@pytest.mark.parametrize("ending", [".gz", ".xz", ".bz2", ".zst"])
def test_compressed_files(tmp_path, ending):
    data = b"eins\nzwei\n"
    path = write(tmp_path / f"a.txt{ending}", compressed(ending, data) + compressed(ending, b"drei\n"))
    assert read(path) == [("eins",), ("zwei",), ("drei",)]  # of two parts that were joined
    for broken in (b"no archive", compressed(ending, data * 9)[:-9]):
        with pytest.raises(InputError, match=r"a\.txt\.\w+:\d+: cannot be read"):
            read(write(path, broken))


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path / "served")))
    threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


def test_files_at_an_address(tmp_path, server, elf):
    lines = "".join(json.dumps({"text": f"line {n} of the text"}) + "\n" for n in range(30)).encode()
    write(tmp_path / "served" / "train.jsonl.gz", gzip.compress(lines))
    address = f"{server}/train.jsonl.gz?download=true"
    code, _, err = elf("tokenize", "-i", address, "--train-tokenizer", "24", "-o", tmp_path / "d")
    assert code == 0 and f"fetching {address}" in err, err
    assert len(load_examples(tmp_path / "d")) == 30
    assert {path.name for path in tmp_path.iterdir()} == {"d", "served"}
    write(tmp_path / "served" / "bad.jsonl", lines + b"{\n")
    _, _, err = elf("tokenize", "-i", f"{server}/bad.jsonl", "--train-tokenizer", "24", "-o", tmp_path / "e")
    assert err.splitlines()[-1].startswith(f"error: {server}/bad.jsonl:31: not JSON")
    _, _, err = elf("tokenize", "-i", f"{server}/none.jsonl", "--train-tokenizer", "24", "-o", tmp_path / "e")
    assert err.splitlines()[-1] == f"error: {server}/none.jsonl: no such file"
    _, _, err = elf("tokenize", "-i", "http://127.0.0.1:9/a.txt", "--train-tokenizer", "22", "-o", tmp_path / "e")
    assert "http://127.0.0.1:9/a.txt: cannot be fetched (" in err.splitlines()[-1]


def test_addresses_of_any_file_system_and_globs(tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("b.txt", "a.txt"):
        memory.pipe(f"/corpus/{name}", name.encode())
    with local_files([["memory://corpus/*.txt", "local.txt"]], tmp_path / "f", lambda *_: None) as [files]:
        assert [Path(file).read_text() for file in files[:2]] == ["a.txt", "b.txt"] and files[2] == "local.txt"
    for address, said in [
        ("memory://corpus/*.csv", "no such file"),
        ("nofs://x/a.txt", "Protocol not known: nofs"),
        ("gs://bucket/a.txt", "gcsfs"),
    ]:
        with pytest.raises(InputError, match=said) as caught, local_files([[address]], tmp_path / "g", lambda *_: None):
            pass
        assert str(caught.value).startswith(address) and "\n" not in str(caught.value)


def test_what_is_remote():
    assert all(
        map(is_remote, ["hf://datasets/a/b/c.jsonl", "https://x/y", "owner/name:train", "owner/name/de-en:test"])
    )
    assert not any(map(is_remote, ["data/train.jsonl", "train.txt", "-", "/x/y:z", "C:/x.txt"]))
