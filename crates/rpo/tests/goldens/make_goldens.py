#!/usr/bin/env python3
"""Makes the golden files beside it: tiny T5 checkpoints and what Hugging Face transformers computes with them.

    pip install torch "transformers==4.57.*" safetensors
    python make_goldens.py

Computed in float64 as far as transformers allows and stored as float32. transformers 5 ties the head of an untied T5, hence the pin.
"""
import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration

assert transformers.__version__.startswith("4.57."), transformers.__version__
HERE = Path(__file__).parent
# More decoder than encoder layers would trip the key-value cache of transformers 4.57.
COMMON = dict(num_layers=3, num_decoder_layers=2, relative_attention_num_buckets=32,
              relative_attention_max_distance=128, dropout_rate=0.0, pad_token_id=0, eos_token_id=1,
              decoder_start_token_id=0)
MODELS = {
    "gated_untied": dict(COMMON, vocab_size=61, d_model=16, d_kv=5, num_heads=3, d_ff=24,
                         feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "relu_tied": dict(COMMON, vocab_size=47, d_model=12, d_kv=7, num_heads=2, d_ff=20, feed_forward_proj="relu",
                      tie_word_embeddings=True),
}
PROMPT_LENGTHS = [150, 7, 40]
RESPONSE_LENGTHS = [200, 3, 31, 17, 1]
RESPONSE_PROMPT = [0, 0, 1, 1, 2]
GENERATION = [dict(max_new_tokens=40), dict(max_new_tokens=40, repetition_penalty=1.2),
              dict(max_new_tokens=40, no_repeat_ngram_size=3),
              dict(max_new_tokens=40, repetition_penalty=1.2, no_repeat_ngram_size=3)]


def build(config, seed):
    """A model whose every part matters: biases that differ, norms that are not 1, logits that spread."""
    torch.manual_seed(seed)
    model = T5ForConditionalGeneration(T5Config(**config)).double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "layer_norm" in name:
                p.copy_(1.0 + 0.3 * torch.randn_like(p))
            elif "relative_attention_bias" in name:
                p.copy_(torch.randn_like(p))
            elif "shared" in name or "lm_head" in name:
                p.copy_(torch.randn_like(p))
            else:
                p.copy_(torch.randn_like(p) * p.shape[1] ** -0.5)
    # What is stored is float32: compute with exactly that.
    return model.float().double()


def pad(rows, fill=0):
    longest = max(map(len, rows))
    return torch.tensor([r + [fill] * (longest - len(r)) for r in rows])


def token_log_probs(model, prompts, responses, response_prompt):
    """Per response its logits [tokens, vocabulary], and per prompt its encoder states, from one padded batch."""
    x = pad([prompts[p] for p in response_prompt])
    mask = pad([[1] * len(prompts[p]) for p in response_prompt])
    out = model(input_ids=x, attention_mask=mask, decoder_input_ids=pad([[0] + r[:-1] for r in responses]))
    logits = [out.logits[i, :len(r)] for i, r in enumerate(responses)]
    hidden = [out.encoder_last_hidden_state[response_prompt.index(p), :len(prompts[p])] for p in range(len(prompts))]
    return logits, hidden


def select(logits, responses):
    return [l.log_softmax(-1)[torch.arange(len(r)), torch.tensor(r)] for l, r in zip(logits, responses)]


def scores(name, config, model):
    g = torch.Generator().manual_seed(11)
    draw = lambda n: torch.randint(2, config["vocab_size"], (n,), generator=g).tolist()
    prompts, responses = [draw(n) for n in PROMPT_LENGTHS], [draw(n) for n in RESPONSE_LENGTHS]
    logits, hidden = token_log_probs(model, prompts, responses, RESPONSE_PROMPT)
    for i, r in enumerate(responses):
        alone, _ = token_log_probs(model, [prompts[RESPONSE_PROMPT[i]]], [r], [0])
        # Norms and softmax are computed in float32 by transformers whatever the model is in.
        assert torch.allclose(alone[0], logits[i], rtol=0, atol=2e-5), "padding leaks"
    picked = select(logits, responses)
    weights = torch.tensor([0.7, -1.3, 0.4, 2.0, -0.5], dtype=torch.float64)
    loss = sum(w * p.mean() for w, p in zip(weights, picked))
    loss.backward()
    ints = lambda v: torch.tensor(v, dtype=torch.int32)
    tensors = dict(
        prompt_ids=ints(sum(prompts, [])), prompt_lengths=ints(PROMPT_LENGTHS), response_ids=ints(sum(responses, [])),
        response_lengths=ints(RESPONSE_LENGTHS), response_prompt=ints(RESPONSE_PROMPT), logits=torch.cat(logits),
        token_log_probs=torch.cat(picked), encoder_hidden=torch.cat(hidden), loss_weights=weights, loss=loss.reshape(1))
    tensors |= {f"grad.{n}": p.grad for n, p in model.named_parameters()}
    tensors = {k: v.detach().contiguous() for k, v in tensors.items()}
    save_file({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()},
              HERE / name / "golden.safetensors")
    return prompts


def generation(name, model, prompts):
    x, mask = pad(prompts), pad([[1] * len(p) for p in prompts])
    cases, ended = [], 0
    for settings in GENERATION:
        out = model.generate(input_ids=x, attention_mask=mask, do_sample=False, num_beams=1, output_scores=True,
                             return_dict_in_generate=True, **settings)
        rows = []
        for i, row in enumerate(out.sequences[:, 1:].tolist()):
            row = row[:row.index(1) + 1] if 1 in row else row
            for step in range(len(row)):
                top = out.scores[step][i].topk(2).values
                assert top[0] - top[1] > 1e-4, "a near tie"
            rows.append(row)
            ended += row[-1] == 1
        cases.append(dict(settings=settings, outputs=rows))
    assert 0 < ended < len(prompts) * len(GENERATION), f"{name}: {ended} answers end"
    (HERE / name / "generation.json").write_text(json.dumps(cases) + "\n")


for name, config in MODELS.items():
    for seed in range(100):
        model = build(config, seed)
        model.float().save_pretrained(HERE / name)
        model.double()
        prompts = scores(name, config, model)
        try:
            generation(name, model, prompts)
        except AssertionError as e:
            print(f"{name}: seed {seed} will not do ({e})")
            continue
        print(f"{name}: seed {seed}")
        break
