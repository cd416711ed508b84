#!/usr/bin/env python3
"""The metrics of `benches/metrics.rs` by their references in Python: `read FILE` and then a metric's name for each line on standard
input, answered by `seconds pairs`; at the end of the input, the peak memory in MiB. What has no package of its own is written here.

Needs what `metric_goldens.py` needs.

Every round begins anew: sacrebleu's caches of tokenized lines and the like are not kept; what WordNet was read is.
"""
import argparse
import json
import resource
import sys
import time

from metric_goldens import Dictionary, NoSynonyms, abusive, grams, text_words
from nltk.tokenize import word_tokenize
from nltk.translate.meteor_score import single_meteor_score
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF

arguments = argparse.ArgumentParser()
arguments.add_argument("--wordnet", default="/usr/share/wordnet")
arguments.add_argument("--abusive-words", help="the JSON file of the linear model")
options = arguments.parse_args()
known = {}


def once(name, make):
    if name not in known:
        known[name] = make()
    return known[name]


def bleu(name, responses, references):
    tokenizer = name.partition("-")[2] or "13a"
    scorer = BLEU(tokenize=tokenizer, force=True)
    for part in [scorer.tokenizer, getattr(scorer.tokenizer, "_post_tokenizer", None)]:
        cached = getattr(type(part), "__call__", None)
        if hasattr(cached, "cache_clear"):
            cached.cache_clear()
    return scorer.corpus_score(responses, [references]).score


def rouge(name, responses, references):
    kind, _, stemmed = name.removeprefix("rouge-").partition("-")
    kind = {"l": "rougeL", "lsum": "rougeLsum"}.get(kind, f"rouge{kind}")
    scorer = rouge_scorer.RougeScorer([kind], use_stemmer=bool(stemmed))
    return sum(scorer.score(b, a)[kind].fmeasure for a, b in zip(responses, references)) / len(responses)


def meteor(name, responses, references):
    wordnet = NoSynonyms if name == "meteor-no-synonyms" else once("wordnet", lambda: Dictionary(options.wordnet))
    tokens = lambda text: word_tokenize(text, preserve_line=True)
    return sum(single_meteor_score(tokens(b), tokens(a), wordnet=wordnet) for a, b in zip(responses, references)) / len(responses)


def distinct(name, responses, _):
    pooled = [gram for text in responses for gram in grams(text_words(text), int(name[-1]))]
    return len(set(pooled)) / len(pooled)


def self_repetition(name, responses, _):
    shares = [1 - len(set(g)) / len(g) for g in (grams(text_words(text), int(name[-1])) for text in responses) if g]
    return sum(shares) / len(shares)


def abusive_words(_, responses, __):
    model = once("model", lambda: json.load(open(options.abusive_words, encoding="utf-8")))
    words = once("words", lambda: dict(model, stop_words=set(model["stop_words"])))
    index = once("index", lambda: {word: i for i, word in enumerate(words["words"]) if word not in words["stop_words"]})
    return sum(abusive(words, text, index) for text in responses) / len(responses)


MAKERS = {
    "bleu": bleu,
    "chrf": lambda _, responses, references: CHRF().corpus_score(responses, [references]).score,
    "chrf++": lambda _, responses, references: CHRF(word_order=2).corpus_score(responses, [references]).score,
    "rouge": rouge,
    "meteor": meteor,
    "distinct": distinct,
    "self": self_repetition,
    "length": lambda _, responses, __: sum(len(text_words(text)) for text in responses) / len(responses),
    "abusive": abusive_words,
}
responses, references = [], []
for line in sys.stdin:
    task = line.strip()
    begin = time.perf_counter()
    if task.startswith("read "):
        rows = [json.loads(row) for row in open(task.removeprefix("read "), encoding="utf-8")]
        responses, references = [row["response"] for row in rows], [row["reference"] for row in rows]
    else:
        if task == "meteor":
            once("wordnet", lambda: Dictionary(options.wordnet))
            begin = time.perf_counter()
        MAKERS[task.partition("-")[0]](task, responses, references)
    print(time.perf_counter() - begin, len(responses), flush=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)
