#!/usr/bin/env python3
"""Makes tiny mT5 and umT5 checkpoints beside it, with the log-probabilities that transformers computes.

    pip install torch "transformers==4.57.*" safetensors
    python make_cousins.py
"""
import json
from pathlib import Path

import torch
import transformers
from transformers import MT5Config, MT5ForConditionalGeneration, UMT5Config, UMT5ForConditionalGeneration

assert transformers.__version__.startswith("4.57."), transformers.__version__
HERE = Path(__file__).parent
SHAPE = dict(vocab_size=61, d_model=16, d_kv=5, num_heads=3, d_ff=24, num_layers=3, num_decoder_layers=2, dropout_rate=0.0)
# umT5's defaults tie the head, mT5's do not.
COUSINS = {"mt5": (MT5Config, MT5ForConditionalGeneration), "umt5": (UMT5Config, UMT5ForConditionalGeneration)}
for name, (config, model) in COUSINS.items():
    torch.manual_seed(3)
    model = model(config(**SHAPE)).eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "layer_norm" in key:
                p.copy_(1.0 + 0.3 * torch.randn_like(p))
            elif "relative_attention_bias" in key or "shared" in key or "lm_head" in key:
                p.copy_(torch.randn_like(p))
            else:
                p.copy_(torch.randn_like(p) * p.shape[1] ** -0.5)
        model.save_pretrained(HERE / name)
        (HERE / name / "generation_config.json").unlink()
        prompt = torch.randint(2, 61, (1, 140))
        response = torch.randint(2, 61, (1, 137))
        logits = model.double()(input_ids=prompt, labels=response).logits[0]
        log_probs = logits.log_softmax(-1).gather(1, response[0][:, None])[:, 0]
        answer = model.float().generate(prompt, max_new_tokens=20, num_beams=1, do_sample=False)[0, 1:]
    golden = dict(prompt=prompt[0].tolist(), response=response[0].tolist(), log_prob=log_probs.sum().item(), answer=answer.tolist())
    (HERE / name / "golden.json").write_text(json.dumps(golden) + "\n")
    print(name, golden["log_prob"], golden["answer"])
