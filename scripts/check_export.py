#!/usr/bin/env python3
"""Checks that a directory written by rpo is what transformers expects: no missing, unexpected or mismatched tensor.

    python scripts/check_export.py DIR [--golden golden.safetensors]

With --golden also compares the log-probability of every response token with the values there.
"""
import argparse
import sys

import torch
from safetensors.torch import load_file
from transformers import T5ForConditionalGeneration

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("dir")
parser.add_argument("--golden")
a = parser.parse_args()
model, info = T5ForConditionalGeneration.from_pretrained(a.dir, output_loading_info=True)
problems = {k: info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs") if info[k]}
if problems:
    sys.exit(f"FAILED: {a.dir}: {problems}")
said = f"{sum(p.numel() for p in model.parameters())} parameters, no missing or unexpected key"
if a.golden:
    g = load_file(a.golden)
    prompts = g["prompt_ids"].long().split(g["prompt_lengths"].tolist())
    responses = g["response_ids"].long().split(g["response_lengths"].tolist())
    got = []
    with torch.no_grad():
        for response, prompt in zip(responses, g["response_prompt"].tolist()):
            inputs = torch.cat([torch.zeros(1, dtype=torch.long), response[:-1]])
            logits = model.eval()(input_ids=prompts[prompt][None], decoder_input_ids=inputs[None]).logits[0].float()
            got.append(logits.log_softmax(-1).gather(1, response[:, None])[:, 0])
    want = g["token_log_probs"]
    error = ((torch.cat(got) - want).abs().max() / want.abs().max()).item()
    if not error < 1e-4:
        sys.exit(f"FAILED: {a.dir}: log-probabilities differ by {error:.2e}")
    said += f", log-probabilities within {error:.1e} of the golden values"
print(f"OK: {a.dir}: {said}")
