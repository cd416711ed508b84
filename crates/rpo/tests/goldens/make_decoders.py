#!/usr/bin/env python3
"""Makes the golden files of decoder-only models beside it: tiny checkpoints of each family and what Hugging Face transformers
computes with them, each response by itself behind its own copy of the prompt.

    pip install torch "transformers==4.57.*" safetensors
    python make_decoders.py [NAME=DIRECTORY ...]

With NAME=DIRECTORY, a checkpoint that is not made here: only `NAME.json` is written, of its scores and answers.
"""
import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

assert transformers.__version__.startswith("4.57."), transformers.__version__
HERE = Path(__file__).parent
COMMON = dict(num_hidden_layers=2, bos_token_id=0, eos_token_id=1, max_position_embeddings=512)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
YARN = dict(rope_type="yarn", factor=16.0, original_max_position_embeddings=32)
MODELS = {
    "llama": LlamaConfig(**COMMON, vocab_size=53, hidden_size=24, intermediate_size=28, num_attention_heads=6,
                         num_key_value_heads=2, tie_word_embeddings=False, rms_norm_eps=1e-5),
    "llama3": LlamaConfig(**COMMON, vocab_size=41, hidden_size=16, intermediate_size=20, num_attention_heads=4,
                          num_key_value_heads=4, head_dim=6, tie_word_embeddings=True, rope_scaling=LLAMA3,
                          attention_bias=True),
    "qwen2": Qwen2Config(**COMMON, vocab_size=47, hidden_size=16, intermediate_size=20, num_attention_heads=4,
                         num_key_value_heads=2, tie_word_embeddings=True),
    "yarn": Qwen2Config(**COMMON, vocab_size=37, hidden_size=12, intermediate_size=16, num_attention_heads=1,
                        num_key_value_heads=1, tie_word_embeddings=True, rope_scaling=YARN, rope_theta=100.0),
    "qwen3": Qwen3Config(**COMMON, vocab_size=43, hidden_size=16, intermediate_size=20, num_attention_heads=4,
                         num_key_value_heads=1, head_dim=8, tie_word_embeddings=False),
}
PROMPT_LENGTHS = [70, 2, 20]
RESPONSE_LENGTHS = [90, 3, 31, 17, 1]
RESPONSE_PROMPT = [0, 0, 1, 1, 2]
GENERATION = [dict(max_new_tokens=30), dict(max_new_tokens=30, repetition_penalty=1.2),
              dict(max_new_tokens=30, no_repeat_ngram_size=3), dict(max_new_tokens=20, num_beams=2),
              dict(max_new_tokens=20, num_beams=4, length_penalty=2.0)]


def build(config, seed):
    """A model whose every part matters: biases that are not 0, norms that are not 1, logits that spread."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.copy_(1.0 + 0.3 * torch.randn_like(p))
            elif "embed" in name or "lm_head" in name:
                p.copy_(torch.randn_like(p))
            elif name.endswith("bias"):
                p.copy_(0.5 * torch.randn_like(p))
            else:
                p.copy_(torch.randn_like(p) * p.shape[1] ** -0.5)
    # What is stored is float32: compute with exactly that.
    return model.float().double()


def logits_of(model, prompt, response):
    out = model(input_ids=torch.tensor([prompt + response])).logits[0]
    return out[len(prompt) - 1:len(prompt) + len(response) - 1]


def select(logits, response):
    return logits.log_softmax(-1)[torch.arange(len(response)), torch.tensor(response)]


def generation(model, prompts, ends):
    cases = []
    for settings in GENERATION:
        rows = []
        for prompt in prompts:
            out = model.generate(input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)),
                                 do_sample=False, pad_token_id=0, **settings)[0, len(prompt):].tolist()
            end = next((i for i, token in enumerate(out) if token in ends), len(out) - 1)
            rows.append(out[:end + 1])
        cases.append(dict(settings=settings, outputs=rows))
    return cases


def drawn(vocabulary):
    g = torch.Generator().manual_seed(11)
    draw = lambda n: torch.randint(2, vocabulary, (n,), generator=g).tolist()
    return [draw(n) for n in PROMPT_LENGTHS], [draw(n) for n in RESPONSE_LENGTHS]


def made(name, config):
    model = build(config, seed=len(name))
    prompts, responses = drawn(config.vocab_size)
    logits = [logits_of(model, prompts[p], r) for p, r in zip(RESPONSE_PROMPT, responses)]
    picked = [select(l, r) for l, r in zip(logits, responses)]
    weights = torch.tensor([0.7, -1.3, 0.4, 2.0, -0.5], dtype=torch.float64)
    loss = sum(w * p.mean() for w, p in zip(weights, picked))
    loss.backward()
    ints = lambda v: torch.tensor(v, dtype=torch.int32)
    tensors = dict(
        prompt_ids=ints(sum(prompts, [])), prompt_lengths=ints(PROMPT_LENGTHS), response_ids=ints(sum(responses, [])),
        response_lengths=ints(RESPONSE_LENGTHS), response_prompt=ints(RESPONSE_PROMPT), logits=torch.cat(logits),
        token_log_probs=torch.cat(picked), loss_weights=weights, loss=loss.reshape(1))
    tensors |= {f"grad.{n}": p.grad for n, p in model.named_parameters()}
    tensors = {k: v.detach().contiguous() for k, v in tensors.items()}
    model.float().save_pretrained(HERE / name)
    save_file({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()},
              HERE / name / "golden.safetensors")
    (HERE / name / "generation.json").write_text(json.dumps(generation(model.double(), prompts, {1})) + "\n")


def elsewhere(name, directory):
    model = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").double().eval()
    prompts, responses = drawn(model.config.vocab_size)
    prompts = [[model.config.bos_token_id] + p for p in prompts]
    with torch.no_grad():
        sums = [select(logits_of(model, prompts[p], r), r).sum().item() for p, r in zip(RESPONSE_PROMPT, responses)]
    cases = generation(model, prompts, {model.config.eos_token_id})
    said = dict(prompts=prompts, responses=responses, response_prompt=RESPONSE_PROMPT, log_probs=sums, generation=cases)
    (HERE / f"{name}.json").write_text(json.dumps(said) + "\n")


if len(sys.argv) == 1:
    for name, config in MODELS.items():
        made(name, config)
for argument in sys.argv[1:]:
    elsewhere(*argument.split("=", 1))
