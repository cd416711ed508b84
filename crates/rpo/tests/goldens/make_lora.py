#!/usr/bin/env python3
"""Makes the golden files of adapters: adapters of tiny checkpoints beside it, as PEFT writes them, what transformers computes
with them, and the gradients of their matrices.

    pip install torch "transformers==4.57.*" "peft==0.17.*" safetensors
    python make_lora.py
"""
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

assert transformers.__version__.startswith("4.57."), transformers.__version__
HERE = Path(__file__).parent
ADAPTERS = {
    "gated_untied": dict(r=4, lora_alpha=6, target_modules=["q", "v", "wi_0", "wo"], task_type="SEQ_2_SEQ_LM"),
    "llama": dict(r=3, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM"),
    "qwen2": dict(r=2, lora_alpha=4, target_modules=["k_proj", "down_proj"], use_rslora=True,
                  alpha_pattern={"self_attn.k_proj": 3}, task_type="CAUSAL_LM"),
}


def ragged(tensors, ids, lengths):
    return [part.tolist() for part in tensors[ids].split(tensors[lengths].tolist())]


def log_probs(model, prompt, response):
    if model.config.is_encoder_decoder:
        inputs = [model.config.decoder_start_token_id] + response[:-1]
        logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([inputs])).logits[0]
    else:
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0][len(prompt) - 1:-1]
    return logits.log_softmax(-1)[torch.arange(len(response)), torch.tensor(response)]


for name, settings in ADAPTERS.items():
    kind = AutoModelForSeq2SeqLM if settings["task_type"] == "SEQ_2_SEQ_LM" else AutoModelForCausalLM
    base = kind.from_pretrained(HERE / name, attn_implementation="eager").float().eval()
    torch.manual_seed(len(name))
    model = get_peft_model(base, LoraConfig(init_lora_weights=False, **settings))
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "lora_" in key:
                p.copy_(0.3 * torch.randn_like(p))
    model.peft_config["default"].base_model_name_or_path = f"../{name}"
    out = HERE / f"lora_{name}"
    model.save_pretrained(out)
    (out / "README.md").unlink()
    model = model.double().eval()
    tensors = load_file(HERE / name / "golden.safetensors")
    prompts = ragged(tensors, "prompt_ids", "prompt_lengths")
    responses = ragged(tensors, "response_ids", "response_lengths")
    owners = tensors["response_prompt"].tolist()
    picked = [log_probs(model, prompts[p], r) for p, r in zip(owners, responses)]
    loss = sum(w * p.mean() for w, p in zip(tensors["loss_weights"].double(), picked))
    loss.backward()
    found = dict(token_log_probs=torch.cat(picked), loss=loss.reshape(1))
    for key, p in model.named_parameters():
        if p.grad is not None:
            key = key.removeprefix("base_model.model.").replace(".default.", ".")
            found[f"grad.{key}"] = p.grad
    save_file({k: v.detach().float().contiguous() for k, v in found.items()}, out / "golden.safetensors")
