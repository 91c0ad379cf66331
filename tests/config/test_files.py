import pytest
from hypothesis import given
from hypothesis import strategies as st

from elfcli.config.files import FileError, read_settings_file


def failure(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FileError) as caught:
        read_settings_file(path)
    return str(caught.value).removeprefix(str(path))


def test_missing_file_names_a_near_one(tmp_path):
    (tmp_path / "train.toml").write_text("")
    with pytest.raises(FileError, match=r"trian\.toml: no such file \(did you mean 'train\.toml'\?\)"):
        read_settings_file(tmp_path / "trian.toml")


@pytest.mark.parametrize(
    ("name", "text", "start"),
    [
        ("a.toml", "seed = 1\nblr = = 2\n", ":2: "),
        ("a.toml", "seed = 1\nseed = 2\n", ":2: "),
        ("a.toml", 'x = "', ":1: "),
        ("a.toml", "x = " + "[" * 5000, ": "),
        ("a.yaml", "seed: 1\n  blr: 2\n", ":2: "),
        ("a.yaml", "seed: 1\nblr: 2\nseed: 3\n", ":3: seed: "),
        ("a.yaml", "seed: !!python/object/apply:os.system [x]\n", ":1: "),
        ("a.yaml", "seed: !!python/name:os.system x\n", ":1: "),
        ("a.yaml", "a: 1\nb: !!binary aGk=\n", ":2: "),
        ("a.yaml", "a: &x [*x]\n", ": "),
        ("a.yaml", "a: " + "[" * 5000, ": "),
        ("a.yaml", "? [a]\n: 1\n", ":1: "),
        ("a.yaml", "just text\n", ":1: "),
        ("a.yaml", "a: 1\n---\nb: 2\n", ":2: "),
        ("a.yaml", b"a: 1\nb: \x07\n", ":2: "),
        ("a.yaml", b"a: 1\nb: \xff\n", ":2: "),
        ("a.yaml", b"#" * 300_000, ": "),
        ("a.json", "{}", ": "),
    ],
)
def test_a_malformed_file_is_one_line_that_names_the_place(tmp_path, name, text, start):
    message = failure(tmp_path, name, text)
    assert message.startswith(start) and "\n" not in message


def test_yaml_aliases_share_their_value_so_a_bomb_stays_small(tmp_path):
    path = tmp_path / "bomb.yaml"
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]", "b0: &b0 {x: 1}"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    rows += [f"b{i}: &b{i} {{<<: [{', '.join([f'*b{i - 1}'] * 10)}]}}" for i in range(1, 12)]
    path.write_text("\n".join(rows))
    source = read_settings_file(path)
    assert source.content["a11"][9] is source.content["a10"] and source.content["b11"] == {"x": 1}
    assert len(source.lines) < 1000


def test_yaml_aliases_and_merges_work(tmp_path):
    path = tmp_path / "a.yml"
    path.write_text("base: &base {blr: 1e-3, seed: 4}\nx:\n  <<: *base\n  seed: 5\n")
    assert read_settings_file(path).content["x"] == {"seed": 5, "blr": 0.001}


def test_toml_lines_follow_headers_lists_and_pass_over_long_text(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(
        '# top\nseed = 1\ntext = """\nblr = 9\n"""\n[optimization]\n  "blr" = 2 # x\nx.y = 3\n'
        "[[sampling]]\ncfgs = [\n  1,\n]\n[[sampling]]\ncfgs = [2]\n"
    )
    source = read_settings_file(path)
    assert source.line_of("seed") == 2
    assert source.line_of("blr") is None
    assert source.line_of("optimization", "blr") == 7
    assert source.line_of("optimization", "x", "y") == 8
    assert source.line_of("sampling") == 9
    assert source.line_of("sampling", 0, "cfgs") == 10
    assert source.line_of("sampling", 1, "cfgs") == 14
    assert source.line_of("sampling", 1, "other") == 13


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xef\xbb\xbfseed = 1\r\nblr = 2\r\n")
    source = read_settings_file(path)
    assert source.content == {"seed": 1, "blr": 2} and source.line_of("blr") == 2


@given(
    content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode), suffix=st.sampled_from(["toml", "yaml"])
)
def test_any_content_reads_or_fails_with_a_line(tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    path.write_bytes(content)
    try:
        read_settings_file(path)
    except FileError as error:
        assert "\n" not in str(error)
