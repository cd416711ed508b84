#!/usr/bin/env python3
"""Checks that a directory written by rpo is what transformers expects: no missing, unexpected or mismatched tensor, a
tokenizer that loads, and an answer without a setting more. A directory with an adapter is loaded by peft beside its base model.

    python scripts/check_export.py DIR [--golden golden.safetensors] [--rpo target/release/rpo] [--prompt TEXT]

With --golden also compares the log-probability of every response token with the values there (of encoder-decoder models), with
--rpo the answer to the prompt with that of the program. A model with a chat template gets the prompt through it.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("dir")
parser.add_argument("--golden")
parser.add_argument("--rpo")
parser.add_argument("--prompt", default="say yes please")
a = parser.parse_args()
adapter = Path(a.dir) / "adapter_config.json"
source = json.loads(adapter.read_text())["base_model_name_or_path"] if adapter.exists() else a.dir
encodes = AutoConfig.from_pretrained(source).is_encoder_decoder
if a.golden and not encodes:
    parser.error("--golden is for encoder-decoder models")
family = AutoModelForSeq2SeqLM if encodes else AutoModelForCausalLM
model, info = family.from_pretrained(source, output_loading_info=True)
problems = {k: info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs") if info[k]}
if problems:
    sys.exit(f"FAILED: {a.dir}: {problems}")
if adapter.exists():
    from peft import PeftModel, get_peft_model_state_dict

    model = PeftModel.from_pretrained(model, a.dir)
    stored = load_file(Path(a.dir) / "adapter_model.safetensors")
    loaded = get_peft_model_state_dict(model)
    if stored.keys() != loaded.keys() or not all(torch.equal(stored[k], loaded[k]) for k in stored):
        sys.exit(f"FAILED: {a.dir}: peft has other adapters than the file")
    model = model.merge_and_unload()
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
if (Path(a.dir) / "tokenizer.json").exists():
    tokenizer = AutoTokenizer.from_pretrained(a.dir)
    chat = not encodes and tokenizer.chat_template is not None
    if chat:
        messages = [{"role": "user", "content": a.prompt}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    else:
        ids = tokenizer(a.prompt, return_tensors="pt").input_ids
    if encodes and ids[0, -1] != model.config.eos_token_id:
        # Tokenizers of other models than T5 do not end their texts; the program does.
        ids = torch.cat([ids, torch.tensor([[model.config.eos_token_id]])], 1)
    out = model.eval().generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16)[0]
    answer = tokenizer.decode(out if encodes else out[ids.shape[1]:], skip_special_tokens=True)
    said += f", answers {answer!r}"
    if a.rpo:
        asked = [a.rpo, "generate", "--model", a.dir, "--max-new-tokens", "16", a.prompt]
        asked += ["--chat-template", "always"] if chat else []
        own = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.rstrip("\n")
        if own.strip() != answer.strip():
            sys.exit(f"FAILED: {a.dir}: transformers answers {answer!r}, rpo {own!r}")
        said += " as rpo does"
print(f"OK: {a.dir}: {said}")
