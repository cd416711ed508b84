#!/usr/bin/env python3
"""Makes processors.json beside it: what transformers' own list of processors, in its own order, does to rows of 12 logits.

    pip install torch "transformers==4.57.*"
    python make_processors.py
"""
import json
from pathlib import Path

import torch
import transformers
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

assert transformers.__version__.startswith("4.57."), transformers.__version__
HERE = Path(__file__).parent
OFF = dict(top_k=0, top_p=1.0, temperature=1.0)
MODEL = T5ForConditionalGeneration(T5Config(vocab_size=12, d_model=4, d_kv=2, num_heads=1, d_ff=4, num_layers=1))

g = torch.Generator().manual_seed(5)
PLAIN = (torch.randn(12, generator=g) * 2).tolist()
ROWS = dict(plain=PLAIN, ties=[1.0, 3.0, 3.0, -2.0, 3.0, 0.5, 1.0, -2.0, 0.0, 2.0, 2.0, 1.5],
            banned=[None if i % 4 == 1 else v for i, v in enumerate(PLAIN)])
# Behind a start token; of ten tokens with it, the loop lacks the last.
PREVIOUS = [[0], [0, 4], [0, 4, 5, 6, 4, 5, 7, 4, 5]]
PUBLISHED = dict(repetition_penalty=1.2, no_repeat_ngram_size=3, temperature=0.7, top_k=50, top_p=0.95)
BIAS = [[[4], -3.0], [[4, 5], 2.5], [[7, 4, 5, 6], 4.0], [[6], 1.5], [[5, 6], -0.75], [[2, 3], 9.0]]
WORDS = [[3], [1], [4, 5, 6], [5, 7], [9, 9, 9], [4, 8]]
SETTINGS = [
    dict(repetition_penalty=1.2), dict(repetition_penalty=0.5), dict(no_repeat_ngram_size=3),
    dict(no_repeat_ngram_size=1), dict(no_repeat_ngram_size=20), dict(temperature=0.7), dict(top_k=3), dict(top_k=1),
    dict(top_k=50), dict(top_p=0.9), dict(top_p=0.05), dict(top_p=1.0), dict(temperature=0.5, top_k=5, top_p=0.8),
    PUBLISHED, dict(PUBLISHED, top_k=4, top_p=0.6),
    dict(min_p=0.1), dict(min_p=1.0), dict(min_p=0.0), dict(min_p=0.3, temperature=2.5),
    dict(min_p=0.05, top_k=6, top_p=0.95), dict(PUBLISHED, min_p=0.2),
    dict(typical_p=0.2), dict(typical_p=0.6), dict(typical_p=0.9, top_k=5), dict(typical_p=0.5, temperature=3.0, min_p=0.05),
    dict(epsilon_cutoff=0.05), dict(epsilon_cutoff=0.9), dict(epsilon_cutoff=0.1, top_p=0.9),
    dict(eta_cutoff=0.05), dict(eta_cutoff=0.9), dict(eta_cutoff=0.3, temperature=2.0, top_k=8),
    dict(PUBLISHED, min_p=0.02, typical_p=0.9, epsilon_cutoff=0.02, eta_cutoff=0.1),
    dict(sequence_bias=BIAS), dict(sequence_bias=BIAS, repetition_penalty=1.5), dict(bad_words_ids=WORDS),
    dict(bad_words_ids=WORDS, sequence_bias=BIAS, top_k=4), dict(suppress_tokens=[2, 8, 11]),
    dict(begin_suppress_tokens=[2, 6]), dict(min_new_tokens=3), dict(min_new_tokens=3, sequence_bias=[[[1], 5.0]]),
    dict(forced_bos_token_id=6), dict(forced_eos_token_id=1), dict(forced_eos_token_id=[1, 7]),
    dict(forced_bos_token_id=1, min_new_tokens=3), dict(forced_bos_token_id=6, begin_suppress_tokens=[2, 6]),
    dict(PUBLISHED, forced_bos_token_id=6, forced_eos_token_id=1, suppress_tokens=[2, 8], begin_suppress_tokens=[9],
         sequence_bias=BIAS, bad_words_ids=WORDS, min_p=0.1),
]


def processors(settings):
    settings = {k: [list(v) for v in value] if k == "sequence_bias" else value for k, value in settings.items()}
    config = GenerationConfig(do_sample=True, eos_token_id=1, pad_token_id=0, decoder_start_token_id=0, max_length=10, **{**OFF, **settings})
    MODEL._prepare_special_tokens(config, device="cpu")
    return MODEL._get_logits_processor(config, input_ids_seq_length=1, encoder_input_ids=torch.ones(1, 1).long())


plain = lambda row: [None if v == float("-inf") else v for v in row]
cases = []
for label, logits in ROWS.items():
    for previous in PREVIOUS:
        for settings in SETTINGS:
            row = torch.tensor([[float("-inf") if v is None else v for v in logits]])
            out = processors(settings)(torch.tensor([previous]), row.clone())[0].tolist()
            given = {k: v for k, v in settings.items() if k != "min_new_tokens"}
            if isinstance(given.get("forced_eos_token_id"), int):
                given["forced_eos_token_id"] = [given["forced_eos_token_id"]]
            cases.append(dict(name=f"{label} {settings} after {previous}", previous=previous, settings=given,
                              min_new_tokens=settings.get("min_new_tokens", 0), logits=plain(row[0].tolist()),
                              expected=plain(out)))
(HERE / "processors.json").write_text(json.dumps(cases) + "\n")
print(len(cases), "cases")
