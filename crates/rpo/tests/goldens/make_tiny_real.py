#!/usr/bin/env python3
"""Makes `tiny_real.json` beside it: log-probabilities that transformers 4.57 gives a checkpoint from elsewhere.

    RPO_ASSETS=... python make_tiny_real.py

The checkpoint is $RPO_ASSETS/weights/t5x-tiny-hf; only values computed with it are kept here.
"""
import json
import os
from pathlib import Path

import torch
from transformers import T5ForConditionalGeneration

model = T5ForConditionalGeneration.from_pretrained(os.environ["RPO_ASSETS"] + "/weights/t5x-tiny-hf").double().eval()
g = torch.Generator().manual_seed(3)
cases = []
for prompt, response in [(150, 140), (5, 9)]:
    x, y = (torch.randint(3, 32100, (n,), generator=g) for n in (prompt, response))
    inputs = torch.cat([torch.zeros(1, dtype=torch.long), y[:-1]])
    with torch.no_grad():
        logits = model(input_ids=x[None], decoder_input_ids=inputs[None]).logits[0]
    values = logits.log_softmax(-1)[torch.arange(len(y)), y]
    cases.append(dict(prompt=x.tolist(), response=y.tolist(), token_log_probs=[round(v, 7) for v in values.tolist()]))
(Path(__file__).parent / "tiny_real.json").write_text(json.dumps(cases) + "\n")
