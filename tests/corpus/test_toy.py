"""The built-in tasks: held-out sentences, agreement, word order, one translation each, determinism."""

import json
from itertools import pairwise
from random import Random

import pytest

from elfcli.corpus import toy
from elfcli.errors import InputError

NOUNS = {noun.german: noun for noun in toy.PERSONS + toy.ANIMALS + toy.THINGS}
FORMS = {
    "der": {("m", "nominative"), ("f", "dative")},
    "die": {("f", "nominative"), ("f", "accusative")},
    "das": {("n", "nominative"), ("n", "accusative")},
    "den": {("m", "accusative")},
    "dem": {("m", "dative"), ("n", "dative")},
    "ein": {("m", "nominative"), ("n", "nominative"), ("n", "accusative")},
    "eine": {("f", "nominative"), ("f", "accusative")},
    "einen": {("m", "accusative")},
    "einem": {("m", "dative"), ("n", "dative")},
    "einer": {("f", "dative")},
}
"""Forms written by hand, as in a grammar book, not taken from the generator."""


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, str]]:
    return toy.generate("toy-de-en", num_train=5000, num_validation=300, seed=11)["train"]


@pytest.mark.parametrize("task", list(toy.TASKS))
@pytest.mark.parametrize("seed", [0, 1])
def test_held_out_texts_never_occur_in_training(task, seed):
    splits = toy.generate(task, num_train=4000, num_validation=300, seed=seed)
    assert {split: len(examples) for split, examples in splits.items()} == {"train": 4000, "validation": 300}
    texts = {split: {text for row in rows for text in row.values()} for split, rows in splits.items()}
    assert not texts["train"] & texts["validation"]
    first_key = "text" if task == "toy-text" else "input"
    assert len({row[first_key] for row in splits["train"]}) == 4000


def test_the_seed_decides_everything():
    first, again, other = (toy.generate("toy-de-en", num_train=50, num_validation=5, seed=s) for s in (3, 3, 4))
    assert first == again
    assert first["train"] != other["train"]


def test_articles_and_adjectives_agree(pairs):
    for pair in pairs:
        words = pair["input"].split()
        for place, word in enumerate(words):
            if word not in FORMS:
                continue
            adjective = words[place + 1] if words[place + 1] not in NOUNS else None
            noun = NOUNS[words[place + 1 if adjective is None else place + 2]]
            cases = {case for gender, case in FORMS[word] if gender == noun.gender}
            assert cases, pair["input"]
            if adjective is None:
                continue
            ending = adjective.removeprefix(next(stem for stem, _ in toy.ADJECTIVES if adjective.startswith(stem)))
            if cases == {"dative"} or word in ("den", "einen"):
                assert ending == "en", pair["input"]
            elif word == "ein":
                assert ending == {"m": "er", "n": "es"}[noun.gender], pair["input"]
            else:
                assert ending == "e", pair["input"]


def test_english_articles_and_lengths(pairs):
    for pair in pairs:
        english = pair["output"].split()
        for article, following in pairwise(english):
            if article in ("a", "an"):
                assert (article == "an") == (following[0] in "aeiou"), pair["output"]
        assert all(4 <= len(text.split()) <= 12 for text in pair.values())


def test_verbs_stand_second_or_last(pairs):
    finite = {verb.german for verb, *_ in toy.TRANSITIVE} | {toy.HELPS.german} | {v.german for v in toy.DITRANSITIVE}
    modals = {german for german, _ in toy.MODALS}
    speech = {german for german, _ in toy.OPINIONS + toy.FEELINGS}
    seen = set()
    for pair in pairs:
        words = pair["input"].split()
        link = next((place for place, word in enumerate(words) if word in ("dass", "weil")), None)
        if link is not None:
            assert words[link - 1] in speech and words[-1] in finite | modals, pair["input"]
            seen.add(words[link])
        else:
            verb = next(place for place, word in enumerate(words) if word in finite | modals)
            assert verb == 1 if words[0] in ("heute", "jetzt") else words[verb - 1] in NOUNS, pair["input"]
            seen.add("modal" if words[verb] in modals else "plain")
            if words[verb] in modals:
                assert words[-1].endswith("en") and words[-1] not in NOUNS, pair["input"]
    assert seen == {"dass", "weil", "modal", "plain"}


def test_known_sentences():
    hund, katze = toy.ANIMALS[0], toy.ANIMALS[2]
    sees, gives = toy.TRANSITIVE[0][0], toy.DITRANSITIVE[0]
    dog = toy.NounPhrase(hund, True, ("klein", "small"))
    cat = toy.NounPhrase(katze, False, ("alt", "old"))
    clause = toy.Clause(sees, dog, cat, modal=("muss", "must"), adverb=("heute", "today"))
    assert " ".join(toy.german_main(clause, "accusative")) == "eine alte katze muss der kleine hund heute sehen"
    assert " ".join(toy.german_main(clause, "adverb")) == "heute muss der kleine hund eine alte katze sehen"
    assert " ".join(toy.german_subordinate(clause)) == "der kleine hund heute eine alte katze sehen muss"
    assert " ".join(toy.english_clause(clause)) == "the small dog must see an old cat today"
    apple = toy.NounPhrase(toy.THINGS[1], False, None)
    gift = toy.Clause(gives, toy.NounPhrase(toy.PERSONS[2], True, None), apple, toy.NounPhrase(hund, True, None))
    assert " ".join(toy.german_main(gift, "dative")) == "dem hund gibt die frau einen apfel"
    assert " ".join(toy.english_clause(gift)) == "the woman gives an apple to the dog"


def test_one_translation_each_and_plenty_of_them():
    random, translations = Random(0), {}
    for _ in range(60_000):
        pair = toy.draw_translation(random)
        assert translations.setdefault(pair["input"], pair["output"]) == pair["output"]
    assert len(translations) > 50_000
    words = {word for pair in translations.items() for text in pair for word in text.split()}
    assert 105 <= len(words) <= 115


def test_word_by_word_is_not_enough(pairs):
    reordered = [pair for pair in pairs if pair["input"].split()[0] in ("den", "einen", "dem", "heute", "jetzt")]
    assert len(reordered) > len(pairs) / 5


def test_files_hold_the_examples(tmp_path):
    paths = toy.task_files("toy-summary", tmp_path, num_train=20, num_validation=4, seed=1)
    splits = toy.generate("toy-summary", num_train=20, num_validation=4, seed=1)
    for split, path in paths.items():
        assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == splits[split]


def test_unknown_task_and_too_many_examples(monkeypatch):
    with pytest.raises(InputError, match="did you mean 'toy-de-en'"):
        toy.generate("toy-de", num_train=1, num_validation=1)
    monkeypatch.setitem(toy.TASKS, "toy-text", lambda random: {"text": str(random.randrange(5))})
    with pytest.raises(InputError, match=r"toy-text .* train"):
        toy.generate("toy-text", num_train=4, num_validation=2)


def test_sentences_are_told_from_others(pairs):
    assert all(toy.is_sentence(pair["output"]) for pair in pairs)
    for wrong in ("the man sees the man", "a apple sees the dog", "the apple sees the dog", "the man the dog sees",
                  "the man says that the man laughs", "the man can sees the dog", "the man sees", ""):  # fmt: skip
        assert not toy.is_sentence(wrong)
    assert not any(toy.is_sentence(" ".join(reversed(pair["output"].split()))) for pair in pairs)
