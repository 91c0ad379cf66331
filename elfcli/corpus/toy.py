"""Generates the built-in tasks from a small grammar, so that everything can be tried offline.

`toy-de-en`: German to English sentences whose translation needs agreement in gender and case and a change of word
order (verb second, verb last, fronted objects and adverbs, modal verbs). `toy-text`: English sentences of the same
grammar. `toy-summary`: a short story and its one-line summary. Everything is a pure function of the seed.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from random import Random

from elfcli.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Noun:
    """A noun in both languages; gender: m, f or n."""

    german: str
    gender: str
    english: str


def _nouns(text: str) -> tuple[Noun, ...]:
    """Return the nouns of a list `german gender english, ...`."""
    return tuple(Noun(*words.split()) for words in text.split(", "))


@dataclass(frozen=True)
class Verb:
    """A verb: third person and infinitive in both languages."""

    german: str
    german_infinitive: str
    english: str
    english_infinitive: str


@dataclass(frozen=True)
class NounPhrase:
    """A noun with an article and, if any, an adjective (German, English)."""

    noun: Noun
    definite: bool
    adjective: tuple[str, str] | None


@dataclass(frozen=True)
class Clause:
    """A clause with a subject and up to two objects; `modal` and `adverb` are (German, English)."""

    verb: Verb
    subject: NounPhrase
    accusative: NounPhrase | None = None
    dative: NounPhrase | None = None
    modal: tuple[str, str] | None = None
    adverb: tuple[str, str] | None = None


PERSONS = _nouns("mann m man, lehrer m teacher, frau f woman, kind n child, mädchen n girl")
ANIMALS = _nouns("hund m dog, vogel m bird, katze f cat, pferd n horse")
THINGS = _nouns("ball m ball, apfel m apple, blume f flower, tasche f bag, buch n book, bild n picture")
ADJECTIVES = (("klein", "small"), ("groß", "big"), ("alt", "old"), ("schön", "beautiful"))
TRANSITIVE = (
    (Verb("sieht", "sehen", "sees", "see"), PERSONS + ANIMALS, PERSONS + ANIMALS + THINGS),
    (Verb("findet", "finden", "finds", "find"), PERSONS + ANIMALS, PERSONS + ANIMALS + THINGS),
    (Verb("kauft", "kaufen", "buys", "buy"), PERSONS, ANIMALS + THINGS),
    (Verb("liebt", "lieben", "loves", "love"), PERSONS + ANIMALS, PERSONS + ANIMALS),
)
HELPS = Verb("hilft", "helfen", "helps", "help")
DITRANSITIVE = (Verb("gibt", "geben", "gives", "give"), Verb("zeigt", "zeigen", "shows", "show"))
OPINIONS = (("sagt", "says"), ("glaubt", "believes"))
FEELINGS = (("lacht", "laughs"), ("wartet", "waits"))
SPEAKERS = [(verb, ("dass", "that")) for verb in OPINIONS] + [(verb, ("weil", "because")) for verb in FEELINGS]
MODALS = (("kann", "can"), ("muss", "must"), ("soll", "should"))
ADVERBS = (("heute", "today"), ("jetzt", "now"))

DEFINITE = {
    "nominative": {"m": "der", "f": "die", "n": "das"},
    "accusative": {"m": "den", "f": "die", "n": "das"},
    "dative": {"m": "dem", "f": "der", "n": "dem"},
}
INDEFINITE = {
    "nominative": {"m": "ein", "f": "eine", "n": "ein"},
    "accusative": {"m": "einen", "f": "eine", "n": "ein"},
    "dative": {"m": "einem", "f": "einer", "n": "einem"},
}


def adjective_ending(gender: str, case: str, definite: bool) -> str:
    """Return the ending of an adjective: weak after der/die/das, mixed after ein/eine."""
    if case == "dative" or (case == "accusative" and gender == "m"):
        return "en"
    if definite or gender == "f":
        return "e"
    return "er" if gender == "m" else "es"


def german_phrase(phrase: NounPhrase | None, case: str) -> list[str]:
    """Return the German words of a phrase; none for None."""
    if phrase is None:
        return []
    noun = phrase.noun
    article = (DEFINITE if phrase.definite else INDEFINITE)[case][noun.gender]
    if phrase.adjective is None:
        return [article, noun.german]
    return [article, phrase.adjective[0] + adjective_ending(noun.gender, case, phrase.definite), noun.german]


def english_phrase(phrase: NounPhrase | None) -> list[str]:
    """Return the English words of a phrase; none for None."""
    if phrase is None:
        return []
    words = [phrase.noun.english] if phrase.adjective is None else [phrase.adjective[1], phrase.noun.english]
    article = "the" if phrase.definite else "an" if words[0][0] in "aeiou" else "a"
    return [article, *words]


def german_parts(clause: Clause) -> dict[str, list[str]]:
    """Return the words of subject, adverb and objects in their usual order; none for absent parts."""
    return {
        "subject": german_phrase(clause.subject, "nominative"),
        "adverb": [clause.adverb[0]] if clause.adverb else [],
        "dative": german_phrase(clause.dative, "dative"),
        "accusative": german_phrase(clause.accusative, "accusative"),
    }


def german_main(clause: Clause, front: str) -> list[str]:
    """Return a main clause, verb second. front: the part before the verb, a key of `german_parts`."""
    parts, verb = german_parts(clause), clause.verb
    words = [*parts.pop(front), clause.modal[0] if clause.modal else verb.german, *chain(*parts.values())]
    return [*words, verb.german_infinitive] if clause.modal else words


def german_subordinate(clause: Clause) -> list[str]:
    """Return a subordinate clause, verb last; a modal follows its infinitive."""
    verbs = [clause.verb.german_infinitive, clause.modal[0]] if clause.modal else [clause.verb.german]
    return [*chain(*german_parts(clause).values()), *verbs]


def english_clause(clause: Clause) -> list[str]:
    """Return a main or subordinate clause: subject, verb, objects, adverb."""
    words = english_phrase(clause.subject)
    words += [clause.modal[1], clause.verb.english_infinitive] if clause.modal else [clause.verb.english]
    words += english_phrase(clause.accusative)
    if clause.dative:
        words += ["to"] * bool(clause.accusative) + english_phrase(clause.dative)
    return [*words, clause.adverb[1]] if clause.adverb else words


def draw_phrase(random: Random, nouns: tuple[Noun, ...], others: tuple[NounPhrase, ...] = ()) -> NounPhrase:
    """Draw a noun phrase whose noun differs from those of `others`."""
    taken = [other.noun for other in others]
    noun = random.choice([noun for noun in nouns if noun not in taken])
    adjective = random.choice(ADJECTIVES) if random.random() < 0.5 else None
    return NounPhrase(noun, random.random() < 0.5, adjective)


def draw_clause(random: Random) -> Clause:
    """Draw a clause."""
    modal = random.choice(MODALS) if random.random() < 0.35 else None
    adverb = random.choice(ADVERBS) if random.random() < 0.3 else None
    kind = random.random()
    if kind < 0.6:
        verb, subjects, objects = random.choice(TRANSITIVE)
        subject = draw_phrase(random, subjects)
        return Clause(verb, subject, draw_phrase(random, objects, (subject,)), None, modal, adverb)
    subject = draw_phrase(random, PERSONS)
    if kind < 0.8:
        helped = draw_phrase(random, PERSONS + ANIMALS, (subject,))
        return Clause(HELPS, subject, None, helped, modal, adverb)
    receiver = draw_phrase(random, PERSONS, (subject,))
    verb = random.choice(DITRANSITIVE)
    return Clause(verb, subject, draw_phrase(random, THINGS), receiver, modal, adverb)


def draw_translation(random: Random) -> dict[str, str]:
    """Draw a German sentence and its only translation, each of 4 to 12 words."""
    while True:
        clause = draw_clause(random)
        if random.random() < 0.35:
            speaker = draw_phrase(random, PERSONS, (clause.subject,))
            verb, link = random.choice(SPEAKERS)
            german = [*german_phrase(speaker, "nominative"), verb[0], link[0], *german_subordinate(clause)]
            english = [*english_phrase(speaker), verb[1], link[1], *english_clause(clause)]
        else:
            fronts = ["subject"] + (["adverb"] * 2 if clause.adverb else []) + (["dative"] if clause.dative else [])
            # Only a masculine article shows which noun is the subject if the accusative comes first.
            if clause.accusative and "m" in (clause.subject.noun.gender, clause.accusative.noun.gender):
                fronts.append("accusative")
            front = random.choice(fronts)
            german, english = german_main(clause, front), english_clause(clause)
        if all(4 <= len(words) <= 12 for words in (german, english)):
            return {"input": " ".join(german), "output": " ".join(english)}


def draw_summary(random: Random) -> dict[str, str]:
    """Draw three sentences, of which one is irrelevant, and a line that joins the other two."""
    person = draw_phrase(random, PERSONS)
    thing = draw_phrase(random, ANIMALS + THINGS, (person,))
    other = draw_phrase(random, PERSONS + ANIMALS, (person, thing))
    hero = NounPhrase(person.noun, False, random.choice(ADJECTIVES))
    patient = NounPhrase(thing.noun, False, random.choice(ADJECTIVES))
    verb, adverb = random.choice(TRANSITIVE[2:3] + TRANSITIVE[1:2])[0], random.choice(ADVERBS)
    irrelevant = draw_phrase(random, THINGS, (thing,))
    again = Clause(verb, NounPhrase(hero.noun, True, None), NounPhrase(patient.noun, True, None), adverb=adverb)
    sentences = [english_clause(Clause(TRANSITIVE[0][0], hero, patient)), english_clause(again)]
    sentences.insert(random.randrange(3), english_clause(Clause(TRANSITIVE[1][0], other, irrelevant)))
    summary = english_clause(Clause(verb, hero, patient, adverb=adverb))
    return {"input": " ".join(" ".join([*words, "."]) for words in sentences), "output": " ".join(summary)}


def phrases(nouns: tuple[Noun, ...]) -> str:
    """Return a regular expression of the English phrases of these nouns."""
    names = "|".join(noun.english for noun in nouns)
    adjectives = "|".join(english for _, english in ADJECTIVES)
    return rf"(?:the|an(?= [aeiou])|a(?! [aeiou])) (?:(?:{adjectives}) )?(?:{names})"


def sentences() -> str:
    """Return a regular expression of the sentences of `toy-text`, but for their length and what nouns may be equal."""
    modals, adverbs = ("|".join(english for _, english in words) for words in (MODALS, ADVERBS))

    def verbs(*some: Verb) -> str:
        forms = [f"{verb.english}|(?:{modals}) {verb.english_infinitive}" for verb in some]
        return f"(?:{'|'.join(forms)})"

    people, things = phrases(PERSONS), phrases(THINGS)
    clauses = [f"{phrases(subjects)} {verbs(verb)} {phrases(objects)}" for verb, subjects, objects in TRANSITIVE]
    clauses += [f"{people} {verbs(HELPS)} {phrases(PERSONS + ANIMALS)}"]
    clauses += [f"{people} {verbs(*DITRANSITIVE)} {things} to {people}"]
    speakers = "|".join(f"{verb} {link}" for (_, verb), (_, link) in SPEAKERS)
    return f"(?:{people} (?:{speakers}) )?(?:{'|'.join(clauses)})(?: (?:{adverbs}))?"


def is_sentence(text: str) -> bool:
    """Return whether the grammar produces a text of `toy-text`."""
    words, names = text.split(), [noun.english for noun in PERSONS + ANIMALS + THINGS]
    nouns = [word for word in words if word in names]
    spoken = 1 if any(link in words for _, (_, link) in SPEAKERS) else 0
    if not 4 <= len(words) <= 12 or not re.fullmatch(sentences(), " ".join(words)):
        return False
    return nouns[spoken] not in (nouns[:spoken] + nouns[spoken + 1 :])


Example = dict[str, str]
TASKS: dict[str, Callable[[Random], Example]] = {
    "toy-de-en": draw_translation,
    "toy-text": lambda random: {"text": draw_translation(random)["output"]},
    "toy-summary": draw_summary,
}


def generate(
    task: str, *, num_train: int = 20_000, num_validation: int = 500, seed: int = 0
) -> dict[str, list[Example]]:
    """Return examples of `train` and `validation`: {"input", "output"}, or {"text"} for toy-text. Inputs are distinct,
    and no text of validation occurs in train. Raises InputError for an unknown task or more examples than the grammar
    has."""
    if task not in TASKS:
        raise InputError(f"No built-in task '{task}'{did_you_mean(task, TASKS)}: the tasks are {', '.join(TASKS)}")
    random = Random(f"{task} {seed}")
    splits: dict[str, list[Example]] = {"validation": [], "train": []}
    seen: set[str] = set()
    held_out: set[str] = set()
    for split, size in (("validation", num_validation), ("train", num_train)):
        misses = 0
        while len(splits[split]) < size:
            example = TASKS[task](random)
            first, *_ = texts = tuple(example.values())
            if first not in seen and held_out.isdisjoint(texts):
                misses = 0
                seen.add(first)
                splits[split].append(example)
            elif (misses := misses + 1) > 100_000:
                raise InputError(f"{task} does not have {size} distinct {split} examples: request fewer")
        held_out = {text for example in splits["validation"] for text in example.values()}
    return {"train": splits["train"], "validation": splits["validation"]}


def task_files(task: str, folder: Path, **sizes_and_seed: int) -> dict[str, Path]:
    """Write `train.jsonl` and `validation.jsonl` of a task into an existing folder, and return their paths."""
    paths = {}
    for split, examples in generate(task, **sizes_and_seed).items():
        paths[split] = folder / f"{split}.jsonl"
        lines = (json.dumps(example, ensure_ascii=False) + "\n" for example in examples)
        paths[split].write_text("".join(lines), encoding="utf-8")
    return paths
