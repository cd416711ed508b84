#!/usr/bin/env python3
"""Makes what the metrics are tested with, beside the other goldens: `metrics.json`, a dictionary of a few words in the format of
WordNet's, and a linear model over a few words. The texts are of our own.

    python -m venv VENV && VENV/bin/pip install sacrebleu==2.5.1 rouge-score==0.1.2 nltk==3.9.1 uniseg==0.10.1 alt-profanity-check==1.9.1
    apt-get install wordnet-base
    VENV/bin/python scripts/metric_goldens.py [--wordnet /usr/share/wordnet]

    VENV/bin/python scripts/metric_goldens.py --compare RESPONSES.jsonl OUT.json

With `--compare` the values go to OUT.json for texts from a file of prompts with their rated responses, each response beside all
that follow it and the next one beside it, as `benches/metrics.rs --check OUT.json` reads it.
"""
import argparse
import json
import math
import pathlib
import random
import re
import shutil
import tempfile
from importlib.metadata import version

import numpy as np
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.stem.porter import PorterStemmer
from nltk.tokenize import word_tokenize
from nltk.translate.meteor_score import meteor_score
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF
from uniseg.wordbreak import words as boundaries

VERSIONS = {"sacrebleu": "2.5.1", "rouge-score": "0.1.2", "nltk": "3.9.1", "uniseg": "0.10.1", "alt-profanity-check": "1.9.1"}
for package, wanted in VERSIONS.items():
    assert version(package) == wanted, f"{package} {version(package)} is not {wanted}"
HERE = pathlib.Path(__file__).parent.parent / "crates/rpo/tests/goldens"

PAIRS = [
    ("The quick brown fox jumps over the lazy dog.", "A quick brown fox jumped over the lazy dogs."),
    ("The car was very fast", "The automobile was extremely quick"),
    ("the kids ran home", "Children went running home, laughing!"),
    ("", "Something should have been said."),
    ("Something was said.", ""),
    ("", ""),
    ("   \n\t ", "blank"),
    ("same text", "same text"),
    ("The same long sentence again, word for word, is what it is.", "The same long sentence again, word for word, is what it is."),
    ("one", "one"),
    ("one", "two"),
    ("one two", "one two three"),
    ("a a a a a a a", "a a"),
    ("a b c d e f g", "g f e d c b a"),
    ("He isn't coming; he can't, won't and shouldn't.", "He is not coming: he cannot, will not and should not."),
    ("I'm sure they've said we'll know what she'd do, it's John's.", "I am sure that they have said we will know; it is John's book."),
    ("I'M SURE THEY'VE SAID WE'LL KNOW: IT'S MINE, ISN'T IT?", "i'm sure they've said we'll know: it's mine, isn't it?"),
    ("Gonna wanna gotta gimme lemme, d'ye cannot more'n that", "going to want to, got to give me, let me; do you, can not, more than that"),
    ("'Tis true 'twas said. 'tis'twas", "It's true it was said; 'tis 'twas"),
    ("We wanna go. I wanna", "We want to go, I wanna go"),
    ('She said "hello" and (quietly) "goodbye".', "She said ``hello'' and [loudly] 'goodbye'."),
    ('"Quoted at the start" she said.', "“Quoted at the start” she said."),
    ("«Guillemets» and „German quotes“ and ‘single’ ones’", "<<Guillemets>> and \"German quotes\" and 'single' ones'"),
    ("It costs $1,234.56, i.e. 10% less than £1.500,00 in 2024.", "The price is $1,234.56 (10% less) as of 2024."),
    ("3.5 is less than 4.0; 1,000,000 is more; 7-8 and 9--10, v1.2.3", "3,5 is less than 4,0; 1000000 more; 7 - 8, 9-10, v1.2.3"),
    ("Call 555-0100 at 10:30, or mail me@example.org; see https://example.org/a?b=c&d=e#f", "Phone 555 0100 at 10.30 or write to me@example.org"),
    ("Wait... what?! No!!! Really??? ...", "Wait . . . what ? ! No ! Really ? …"),
    ("Well, ,, :: ;; well:\n", "Well, well:"),
    ("Ends with a colon:", "Ends with a comma,"),
    ("(It ends inside.)", "[It ends inside.]"),
    ("He said 'it ends inside.'", "He said \"it ends inside.\""),
    ("One sentence. Another sentence. A third one.  ", "One sentence, another sentence, a third one"),
    ("Mr. Smith of the U.S. met Dr. Jones at 5 p.m. in St. Louis.", "Mister Smith of the USA met Doctor Jones at five in Saint Louis."),
    ("Lines\nof\na poem\n\nwith gaps", "Lines of\na poem\nwith gaps"),
    ("hyphen-\nated words and state-of-the-art", "hyphenated words and state of the art"),
    ("Tabs\tand\u00a0no-break\u2003spaces\u2028and separators\x1chere", "Tabs and no-break spaces and separators here"),
    ("&lt;b&gt;Tom &amp; Jerry&lt;/b&gt; say &quot;hi&quot; &amp;lt;", "<b>Tom & Jerry</b> say \"hi\" <"),
    ("<skipped>skipped segment -<skipped>\nhere", "segment - here"),
    ("Die Straße überquerten fünf Mädchen, während es regnete.", "Fünf Mädchen gingen bei Regen über die Straße."),
    ("Das Übersetzen großer Texte fällt der Maschine leicht.", "Der Maschine fällt es leicht, große Texte zu übersetzen!"),
    ("ÄÖÜ SS ẞ ß İstanbul ǅ ΣΑΣ", "äöü ss ß istanbul ǆ σας"),
    ("Où est la bibliothèque ? C'est l'été, n'est-ce pas ?", "Où se trouve la bibliothèque? C’est l’été, pas vrai ?"),
    ("¿Dónde está el niño? ¡Aquí está!", "¿Dónde está la niña? Aquí está."),
    ("Мама мыла раму, а папа читал газету.", "Мама помыла раму, папа читал газеты."),
    ("我今天去了图书馆，借了三本书。", "我今天去图书馆借了三本书。"),
    ("今天天气很好，我们去公园吧！ OK?", "天气不错，我们一起去公园。OK"),
    ("東京は日本の首都です。コーヒーをください。", "日本の首都は東京です。コーヒーを下さい。"),
    ("나는 오늘 학교에 갔다.", "오늘 나는 학교에 갔습니다."),
    ("مرحبا بالعالم، كيف حالك؟", "مرحبا يا عالم، كيف الحال؟"),
    ("'ह' हिन्दी में 'नमस्ते' १२,३४५: ५", "हिन्दी में नमस्ते १२३४५"),
    ("สวัสดีชาวโลก", "สวัสดี โลก"),
    ("Emoji 😀👍🏽 family 👩‍👩‍👧 flag 🇩🇪!", "Emoji 😀 👍 family 👨‍👩‍👧 flag 🇫🇷"),
    ("cafe\u0301 naïve re\u0301sume\u0301", "café naïve résumé"),
    ("ﬁne ² ½ Ⅷ ① km² 10€ ©®™ ∑∞≠ №5", "fine 2 1/2 VIII 1 km2 10 € (c) sum 5"),
    ("zero\u200bwidth and soft\u00adhyphen \ufeffmark", "zero width and soft hyphen mark"),
    ("`code` and ```fences``` and ''two'' ```", "'code' and fences and \"two\""),
    ("* first\n* second\n* third\n", "1. first\n2. second\n3. third"),
    ("f(x) = a_1*x^2 + b[0]/{c} - d|e~f\\g <h>", "f(x)=a_1 * x^2 + b[0] / c"),
    ("Caresses and ponies were relational, conditional; hopefully the generalizations are electrical.", "A caress, a pony, relations, conditions: hope that a general electricity adjusts."),
    ("Dying flies lied; skies, innings, news and geology succeed and proceed.", "He died, the fly lies under the sky with an inning and geologists' successes."),
    ("The geese and mice of the oxen were better and worse than children's teeth.", "A goose, a mouse, an ox: good, bad, a child and a tooth."),
    ("The doctor purchased a big house near the sea and began to weep.", "The physician bought a large home by the ocean and started crying."),
    ("Bigger, fastest and happier men wolves leaves boxes churches dishes quizzes", "big fast happy man wolf leaf box church dish quiz"),
    ("New_York and ice_cream in paris, Paris and PARIS", "new york, ice cream in Paris"),
    ("x", "X"),
    (".", "."),
    ("!", "?"),
    ("(hi) 'hi' -hi- hi. .hi ..", "hi ( hi ) ' hi '"),
    ("word" * 300, "word" * 299),
    ("yyyyy yyy eyes say yes", "yyy eye says yes"),
]
SEVERAL = [
    ("the cat sat on the mat", ["the cat is on the mat", "there is a cat on the mat", "a cat sat"]),
    ("It is a guide to action which ensures that the military always obeys the commands of the party",
     ["It is a guide to action that ensures that the military will forever heed Party commands",
      "It is the guiding principle which guarantees the military forces always being under the command of the Party",
      "It is the practical guide for the army always to heed the directions of the party"]),
    ("no match at all", ["completely different words", "and others, too"]),
    ("one of them is empty", ["", "one of them is full"]),
    ("shortest wins ties", ["a b", "a b c d", "shortest wins ties now"]),
    ("several\nlines\nhere", ["several lines\nhere", "here\nlines\nseveral"]),
    ("", ["", "nothing"]),
    ("Grüße aus Köln!", ["Viele Grüße aus Köln.", "Grüsse aus Koeln!", "Greetings from Cologne!"]),
    ("我们去公园", ["我们去公园吧", "去公园"]),
    ("The children's automobile is quick.", ["The kid's car is fast.", "That auto of the child was speedy."]),
]
WORDS = """the a of to and in that is was he for it with as his on be at by had not are but from or have an they which one you
were her all she there would their we him been has when who will more no if out so said what up its about into than them can only
other new some could time these two may then do first any my now such like our over man me even most made after also did many before
must through years where much your way well down should because each just those people mister how too little state good very make
world still own see men work long get here between both life being under never day same another know while last might us great old
year off come since against go came right used take three running houses quickly beautiful government children's don't isn't""".split()

# Parts of speech to synsets: their words, as the dictionary writes them.
SYNSETS = {
    "noun": [["car", "auto", "automobile", "motorcar"], ["child", "kid", "youngster"], ["house", "home"], ["man", "adult_male"],
             ["Paris", "City_of_Light"], ["ice_cream", "icecream"], ["goose"], ["mouse"], ["doctor", "physician", "Doc"],
             ["leaf", "leafage"], ["sea", "ocean"], ["bus", "coach"], ["run", "rill"], ["box", "case"]],
    "verb": [["run", "rush"], ["begin", "start", "get_down"], ["cry", "weep"], ["purchase", "buy"], ["say", "state", "tell"]],
    "adj": [["fast(a)", "quick"], ["big", "large"], ["extreme(p)", "utmost"], ["good", "well"], ["happy", "glad"]],
    "adv": [["very", "extremely"], ["home", "homewards"], ["well", "good"]],
}
IRREGULAR = {"noun": "children child\ngeese goose\nmice mouse\nmen man\n", "verb": "ran run\nbegan begin\nsaid say\nbought buy\n",
             "adj": "better good well\nbest good\n", "adv": "better well\n"}
LETTER = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}


def long_pair(seed, n):
    draw = random.Random(seed)
    words = [draw.choice(WORDS) + draw.choice(["", "", "", "", "", "", ",", ".", ".\n", "!"]) for _ in range(n)]
    other = [draw.choice(WORDS) if draw.random() < 0.4 else word for word in words if draw.random() < 0.95]
    return " ".join(words), " ".join(other)


def our_cases():
    cases = [{"response": response, "references": [reference]} for response, reference in PAIRS]
    cases += [{"response": response, "references": references} for response, references in SEVERAL]
    cases += [{"response": a, "references": [b]} for a, b in [long_pair(seed, n) for seed, n in enumerate([20, 40, 80, 150, 600])]]
    return cases + [{"response": "Nothing is known of this one.", "references": []}]


def write_dictionary(directory):
    """The dictionary; the offset of a synset is that of its line."""
    directory.mkdir(exist_ok=True)
    notice = "  1 A few words of our own for tests, as WordNet 0.0 Copyright writes them.  \n"
    for part, synsets in SYNSETS.items():
        data, index = notice, {}
        for words in synsets:
            offset = len(data)
            written = " ".join(f"{word} 0" for word in words)
            frames = " 00" if part == "verb" else ""
            data += f"{offset:08d} 03 {LETTER[part]} {len(words):02x} {written} 000{frames} | {words[0]}  \n"
            for word in words:
                index.setdefault(word.split("(")[0].lower(), []).append(offset)
        lines = [f"{word} {LETTER[part]} {len(at)} 0 {len(at)} 0 {' '.join(f'{o:08d}' for o in at)}  \n" for word, at in sorted(index.items())]
        (directory / f"data.{part}").write_text(data)
        (directory / f"index.{part}").write_text(notice + "".join(lines))
        (directory / f"{part}.exc").write_text(IRREGULAR[part])


class Dictionary(WordNetCorpusReader):
    """A dictionary with two files that NLTK wants beside Debian's: names, of which the number counts, and keys, which METEOR does not use."""

    def __init__(self, directory):
        self.place = tempfile.TemporaryDirectory()
        place = pathlib.Path(self.place.name)
        for file in pathlib.Path(directory).iterdir():
            if file.is_file():
                shutil.copy(file, place)
        (place / "index.sense").touch()
        (place / "lexnames").write_text("".join(f"{i:02d}\tname{i}\t1\n" for i in range(45)))
        super().__init__(str(place), None)

    def map_wn(self, version="wordnet"):
        """Other languages, which nobody asks for."""


class NoSynonyms:
    @staticmethod
    def synsets(word):
        return []


MODEL = {"source": "words of the tests", "stop_words": ["the", "is", "a"],
         "words": ["fox", "dog", "the", "automobile", "straße", "hello", "said", "cat", "we", "家"], "idf": [4.5, 4.25, 1.0, 6.5, 7.0, 3.5, 2.5, 5.0, 2.0, 3.0],
         "models": [{"a": -1.5 - i, "b": 0.25 * i, "c": -0.5, "w": [((i + 1) * (j + 3) * 7 % 11 - 5) / 4 for j in range(10)]} for i in range(3)]}


def abusive(model, text, words=None):
    words = words or {word: i for i, word in enumerate(model["words"]) if word not in model["stop_words"]}
    x = {}
    for word in re.findall(r"\b\w\w+\b", text.lower()):
        if word in words:
            x[words[word]] = x.get(words[word], 0.0) + model["idf"][words[word]]
    norm = math.sqrt(sum(v * v for v in x.values())) or 1.0
    logits = [m["a"] * (sum(m["w"][i] * v / norm for i, v in x.items()) + m["c"]) + m["b"] for m in model["models"]]
    return sum(1 / (1 + math.exp(z)) for z in logits) / len(logits)


def text_words(text):
    return [word for word in boundaries(text.lower()) if any(c.isalnum() for c in word)]


def grams(words, n):
    return list(zip(*(words[i:] for i in range(n))))


def corpus(cases, score):
    """Of all cases with references, and of each."""
    known = [case for case in cases if case["references"]]
    most = max(len(case["references"]) for case in known)
    padded = [case["references"] + [None] * (most - len(case["references"])) for case in known]
    each = [score([case["response"]], [[r] for r in case["references"]]).score if case["references"] else None for case in cases]
    return {"all": score([case["response"] for case in known], list(map(list, zip(*padded)))).score, "each": each}


def mean(values):
    known = [v for v in values if v is not None]
    return {"all": float(np.mean(known)) if known else None, "each": values}


def values(cases, wordnets, models):
    found = {}
    for tokenize in ["13a", "intl", "zh", "char", "none"]:
        name = "bleu" if tokenize == "13a" else f"bleu-{tokenize}"
        found[name] = corpus(cases, BLEU(tokenize=tokenize, force=True).corpus_score)
    found["chrf"] = corpus(cases, CHRF().corpus_score)
    found["chrf++"] = corpus(cases, CHRF(word_order=2).corpus_score)
    kinds = {"rouge1": "rouge-1", "rouge2": "rouge-2", "rouge3": "rouge-3", "rougeL": "rouge-l", "rougeLsum": "rouge-lsum"}
    for stemmed in [False, True]:
        scorer = rouge_scorer.RougeScorer(list(kinds), use_stemmer=stemmed)
        scores = [scorer.score_multi(c["references"], c["response"]) if c["references"] else None for c in cases]
        for kind, name in kinds.items():
            found[name + "-stemmed" * stemmed] = mean([s and float(s[kind].fmeasure) for s in scores])
    tokens = lambda text: word_tokenize(text, preserve_line=True)
    for name, wordnet in wordnets.items():
        found[name] = mean([
            meteor_score([tokens(r) for r in c["references"]], tokens(c["response"]), wordnet=wordnet) if c["references"] else None
            for c in cases])
    words = [text_words(c["response"]) for c in cases]
    for n in [1, 2, 3]:
        pooled = [gram for text in words for gram in grams(text, n)]
        found[f"distinct-{n}"] = {"all": len(set(pooled)) / len(pooled)}
    for n in [1, 4]:
        found[f"self-repetition-{n}"] = mean([1 - len(set(g)) / len(g) if g else None for g in (grams(w, n) for w in words)])
    found["length-characters"] = mean([len(c["response"]) for c in cases])
    found["length-words"] = mean([len(w) for w in words])
    theirs = [np.mean([len(text_words(r)) for r in c["references"]]) if c["references"] else None for c in cases]
    both = [(len(w), float(t)) for w, t in zip(words, theirs) if t is not None]
    found["length-ratio-words"] = {"all": sum(a for a, _ in both) / sum(b for _, b in both)}
    for name, score in models.items():
        found[name] = mean([score(c["response"]) for c in cases])
    return found


def stems():
    begins = ["", "y", "tr", "hop", "fail", "rel", "sens", "geo", "sky", "agre", "contr", "électr", "troubl", "conflat", "buzz", "ss", "eat", "vey"]
    ends = """s es ss sses ies ied eed ed ing ating izing y ly alli ational tional enci anci izer bli abli entli eli ousli ization ation ator
    alism iveness fulness ousness aliti iviti biliti fulli logi icate ative alize iciti ical ful ness al ance ence er ic able ible ant ement
    ment ent ion sion tion ou ism ate iti ous ive ize e ll ell lle""".split()
    words = [begin + end for begin in begins for end in ends]
    words += """sky skies dying lying tying news innings inning outings cannings howe proceed exceed succeed dies died spied enjoy is as by
    rolling controlling hissing falling filing axes oxen yyyyy sayy boy boyish xing""".split()
    return {word: PorterStemmer().stem(word) for word in words}


def tokens(cases):
    texts = sorted({text for case in cases for text in [case["response"], *case["references"]]}, key=lambda text: (len(text), text))
    tokenizers = {name: BLEU(tokenize=name).tokenizer for name in ["13a", "intl", "zh", "char", "none"]}
    rows = []
    for text in filter(lambda text: len(text) < 500, texts):
        row = {"text": text, "nltk": word_tokenize(text, preserve_line=True), "words": text_words(text)}
        rows.append(row | {name: tokenizer(text.rstrip()).split() for name, tokenizer in tokenizers.items()})
    return rows


def from_file(path):
    cases = []
    for line in open(path, encoding="utf-8"):
        texts = [response["text"] for response in json.loads(line)["responses"]]
        for i, text in enumerate(texts[:-1]):
            cases += [{"response": text, "references": texts[i + 1:]}, {"response": texts[i + 1], "references": [text]}]
    return cases


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--wordnet", default="/usr/share/wordnet")
    arguments.add_argument("--compare", nargs=2)
    options = arguments.parse_args()
    from profanity_check import predict_prob

    wordnets = {"meteor-no-synonyms": NoSynonyms, "meteor": Dictionary(options.wordnet)}
    models = {"abusive-words": lambda text: float(predict_prob([text])[0])}
    if options.compare:
        cases = from_file(options.compare[0])
        golden = {"cases": cases, "metrics": values(cases, wordnets, models)}
        return pathlib.Path(options.compare[1]).write_text(json.dumps(golden, ensure_ascii=False))
    write_dictionary(HERE / "wordnet")
    (HERE / "abusive_words.json").write_text(json.dumps(MODEL, ensure_ascii=False, indent=1) + "\n")
    wordnets["meteor-of-goldens"] = Dictionary(HERE / "wordnet")
    models["abusive-words-of-goldens"] = lambda text: abusive(MODEL, text)
    cases = our_cases()
    golden = {"made_by": VERSIONS, "cases": cases, "metrics": values(cases, wordnets, models), "stems": stems(), "tokens": tokens(cases)}
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in golden.items())
    (HERE / "metrics.json").write_text("{\n" + lines + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
