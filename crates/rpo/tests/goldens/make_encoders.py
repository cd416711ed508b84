#!/usr/bin/env python3
"""Makes the golden files of encoders in `encoders/` beside it: tiny classifiers of texts, and what Hugging Face transformers and
bert-score compute with them.

    pip install torch "transformers==4.57.*" bert-score==0.3.13
    python make_encoders.py [NAME=DIRECTORY]

With NAME=DIRECTORY, an encoder that is not made here: only `NAME.json` is written, of bert-score's values at its last layer.
"""
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from bert_score import score
from tokenizers import ByteLevelBPETokenizer
from transformers import (AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertConfig,
                          BertTokenizerFast, DistilBertConfig, DistilBertTokenizerFast, RobertaConfig,
                          RobertaTokenizerFast, pipeline)

assert transformers.__version__.startswith("4.57."), transformers.__version__
HERE = Path(__file__).parent / "encoders"
LONG = "the cat sat on the mat and the dog ran home to the café because it was cold and dark outside, again!"
TEXTS = ["The cat sat on the mat.", "a dog ran home", "", "Ü naïve  café 42", LONG, "  the mat [SEP] </s> <pad> was [PAD] cold ",
         "xyz qqq zzz", "The cat\tsat\nagain"]
CANDIDATES = ["The cat sat on the mat.", "The cat sat on the mat.", "a dog ran home", "", "the cat", LONG, "same text",
              "Ü naïve  café 42", "  the mat [SEP] </s> was cold ", "a a a b"]
REFERENCES = ["A cat was sitting on the mat.", "It was cold outside again", "the dog ran to the cat", "the mat", "",
              "it was cold and dark", "same text", "a naive cafe, number 42", "the mat was cold", "b a"]
WORDS = "the a cat dog sat ran on mat and home to it was cold dark outside again same text number because".split()
BASELINE = "LAYER,P,R,F\n0,0.11,0.12,0.13\n1,0.21,0.22,0.23\n2,0.31,0.32,0.33\n3,0.41,0.42,0.43\n"


def wordpiece(directory, kind):
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + [str(d) for d in range(10)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = special + letters + [f"##{c}" for c in letters] + list(".,!?") + WORDS + ["##ing", "##t"]
    vocabulary = directory / "vocab.txt"
    vocabulary.write_text("\n".join(dict.fromkeys(pieces)) + "\n")
    kind(vocab_file=str(vocabulary), model_max_length=24).save_pretrained(directory)


def byte_level(directory):
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator([LONG] + CANDIDATES + REFERENCES, vocab_size=300, min_frequency=2,
                            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    bpe.save_model(str(directory))
    RobertaTokenizerFast.from_pretrained(directory, model_max_length=24).save_pretrained(directory)


def config_of(name, tokens):
    shape = dict(vocab_size=tokens, num_hidden_layers=3, hidden_size=16, num_attention_heads=4, intermediate_size=20)
    if name == "bert":
        return BertConfig(**shape, max_position_embeddings=30, layer_norm_eps=1e-3, problem_type="multi_label_classification",
                          id2label={0: "obscene", 1: "toxic", 2: "severe_toxic"})
    if name == "roberta":
        return RobertaConfig(**shape, max_position_embeddings=26, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1,
                             id2label={0: "neutral", 1: "toxic"})
    return DistilBertConfig(vocab_size=tokens, n_layers=2, dim=16, n_heads=2, hidden_dim=20, max_position_embeddings=24,
                            id2label={0: "NOT-HATE", 1: "HATE"})


def build(config, seed):
    """A model whose every part matters: biases that are not 0, norms that are not 1."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name.lower() and name.endswith("weight"):
                p.copy_(1.0 + 0.3 * torch.randn_like(p))
            elif name.endswith("bias"):
                p.copy_(0.3 * torch.randn_like(p))
            elif "embeddings" in name:
                p.copy_(torch.randn_like(p))
            else:
                p.copy_(1.5 * torch.randn_like(p) * p.shape[1] ** -0.5)
    return model


def rounded(values):
    return [None if math.isnan(v) else round(v, 7) for v in values]


def scored(directory, candidates, references, layer, **settings):
    # One pair at a time, so that no padding stands among what tokens are matched with.
    parts = score(candidates, references, model_type=str(directory), num_layers=layer, batch_size=1, device="cpu", nthreads=0,
                  **settings)
    return [rounded(part.tolist()) for part in parts]


def bert_score_of(directory, layers):
    several = [[r, "the cat was cold", ""][: 1 + i % 3] for i, r in enumerate(REFERENCES)]
    said = dict(candidates=CANDIDATES, references=REFERENCES, several=several, baseline=BASELINE, cases=[])
    for layer in layers:
        for idf in [False, True]:
            scores = scored(directory, CANDIDATES, REFERENCES, layer, idf=idf)
            best = scored(directory, CANDIDATES, several, layer, idf=idf)
            said["cases"].append(dict(layer=layer, idf=idf, scores=scores, several=best))
    return said


def made(name):
    directory = HERE / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    if name == "roberta":
        byte_level(directory)
    else:
        wordpiece(directory, BertTokenizerFast if name == "bert" else DistilBertTokenizerFast)
    tokens = len(AutoTokenizer.from_pretrained(directory))
    model = build(config_of(name, tokens), len(name))
    model.save_pretrained(directory)
    layers = AutoConfig.from_pretrained(directory).num_hidden_layers
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = [tokenizer(text, truncation=True)["input_ids"] for text in TEXTS]
    encoder = AutoModel.from_pretrained(directory, attn_implementation="eager").double().eval()
    with torch.no_grad():
        states = [encoder(torch.tensor([i]), output_hidden_states=True).hidden_states for i in ids[:4]]
    states = [[rounded(layer.flatten().tolist()) for layer in text] for text in states]
    classify = pipeline("text-classification", model=str(directory), tokenizer=tokenizer, top_k=None, device="cpu")
    classes = classify(TEXTS, truncation=True)
    labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
    probabilities = [rounded([{c["label"]: c["score"] for c in text}[label] for label in labels]) for text in classes]
    golden = dict(texts=TEXTS, ids=ids, states=states, labels=labels, probabilities=probabilities,
                  bert_score=bert_score_of(directory, [1, layers]))
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as baseline:
        baseline.write(BASELINE)
        baseline.flush()
        golden["bert_score"]["rescaled"] = scored(directory, CANDIDATES, REFERENCES, 1, lang="en", rescale_with_baseline=True,
                                                  baseline_path=baseline.name)
    (directory / "golden.json").write_text(json.dumps(golden, ensure_ascii=False) + "\n")


def elsewhere(name, directory):
    layers = AutoConfig.from_pretrained(directory).num_hidden_layers
    (HERE / f"{name}.json").write_text(json.dumps(bert_score_of(directory, [layers - 1, layers]), ensure_ascii=False) + "\n")


if len(sys.argv) == 1:
    for name in ["bert", "roberta", "distilbert"]:
        made(name)
for argument in sys.argv[1:]:
    elsewhere(*argument.split("=", 1))
