#!/usr/bin/env python3
"""Makes beams.json beside each golden model: what transformers answers by beam search.

    pip install torch "transformers==4.57.*" safetensors
    python make_beams.py
"""
import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers import T5ForConditionalGeneration

assert transformers.__version__.startswith("4.57."), transformers.__version__
HERE = Path(__file__).parent
SETTINGS = [
    dict(num_beams=beams, length_penalty=penalty, early_stopping=early, max_new_tokens=24)
    for beams in (2, 4) for penalty in (0.5, 1.0, 2.0, -1.0) for early in (False, True, "never")
]
SETTINGS += [
    dict(num_beams=4, length_penalty=1.2, early_stopping=True, max_new_tokens=24, no_repeat_ngram_size=3),
    dict(num_beams=3, max_new_tokens=24, min_new_tokens=6, repetition_penalty=1.3),
    dict(num_beams=3, max_new_tokens=24, eos_token_id=[1, 27]),
    dict(num_beams=1, max_new_tokens=24, min_new_tokens=8),
    dict(num_beams=4, max_new_tokens=1),
]
for name in ("gated_untied", "relu_tied"):
    model = T5ForConditionalGeneration.from_pretrained(HERE / name).eval()
    golden = load_file(HERE / name / "golden.safetensors")
    prompts = golden["prompt_ids"].long().split(golden["prompt_lengths"].tolist())
    cases = []
    for settings in SETTINGS:
        ends = settings.get("eos_token_id", [1])
        outputs = []
        for prompt in prompts:
            row = model.generate(input_ids=prompt[None], do_sample=False, **settings)[0, 1:].tolist()
            end = next((i for i, token in enumerate(row) if token in ends), len(row) - 1)
            outputs.append(row[:end + 1])
        cases.append(dict(settings=settings, outputs=outputs))
    (HERE / name / "beams.json").write_text(json.dumps(cases) + "\n")
    lengths = sorted({len(row) for case in cases for row in case["outputs"]})
    print(f"{name}: {len(cases)} cases, answers of {lengths} tokens")
