#!/usr/bin/env python3
"""Makes decoding.json beside each golden model: what transformers answers under every setting that chooses tokens.

    pip install torch "transformers==4.57.*" safetensors
    python make_decoding.py [MODEL ...]

Prompts and settings are drawn until no answer hangs on a near tie, which floating-point numbers decide one way or the other: noise
of 1e-4 in the logits must change nothing. Settings name tokens of the plain answers, so that they change them; one that changes
none is refused.
"""
import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, LogitsProcessorList

assert transformers.__version__.startswith("4.57."), transformers.__version__
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
HERE = Path(__file__).parent
MODELS = ["gated_untied", "relu_tied", "mt5", "umt5", "llama", "llama3", "qwen2", "qwen3", "yarn"]
PROMPT_LENGTHS = [33, 3, 11]
MOST = 14
COPIES = 4


class Noise(torch.nn.Module):
    """Adds to the logits of all but the first of `COPIES` rows."""

    def __init__(self, beams):
        super().__init__()
        self.beams = beams

    def forward(self, input_ids, scores):
        noise = (torch.rand_like(scores) * 2 - 1) * 1e-4
        noise[:self.beams] = 0
        return scores + noise


def answers(model, prompt, settings, copies=1):
    """Answers to `prompt`, up to the token that ends each; several copies are told apart by noise."""
    x = torch.tensor([prompt] * copies)
    noise = LogitsProcessorList([Noise(settings.get("num_beams", 1))]) if copies > 1 else None
    out = model.generate(input_ids=x, attention_mask=torch.ones_like(x), pad_token_id=0, do_sample=False,
                         logits_processor=noise, **{"eos_token_id": 1, **settings})
    ends = settings.get("eos_token_id", 1)
    ends = ends if isinstance(ends, list) else [ends]
    rows = out[:, 1 if model.config.is_encoder_decoder else len(prompt):].tolist()
    cut = lambda row: row[:next((i for i, token in enumerate(row) if token in ends), len(row) - 1) + 1]
    return [cut(row) for row in rows]


def certain(model, prompt, settings):
    """Answers to `prompt` that noise does not change, or None."""
    wanted = settings.get("num_return_sequences", 1)
    noisy = answers(model, prompt, settings, COPIES)
    if any(noisy[i * wanted:(i + 1) * wanted] != noisy[:wanted] for i in range(COPIES)):
        return None
    found = answers(model, prompt, settings)
    assert found == noisy[:wanted], "what is beside a row changes it"
    return found


def kinds(plain, vocabulary):
    """Settings beside the prompts that they are for; `plain` are the greedy answers."""
    a, b, c = plain
    # transformers takes no bias of token 0 from a list, and of several of a sequence the last.
    biases = [[[a[0]], -6.0], [b[0:2], -20.0], [c[1:4], -15.0], [[b[0], 5], 4.0], [[7], 2.5], [[c[1]], -6.0], [[5], 2.0]]
    biases = [bias for i, bias in enumerate(biases)
              if 0 not in bias[0] and bias[0] not in [other for other, _ in biases[:i]]]
    greedy = [
        dict(), dict(repetition_penalty=1.3), dict(repetition_penalty=0.8), dict(no_repeat_ngram_size=1),
        dict(no_repeat_ngram_size=2), dict(bad_words_ids=[[a[1]], b[1:3], c[0:3]]),
        dict(sequence_bias=biases),
        dict(min_new_tokens=9, eos_token_id=[1, a[3], b[1], c[2]]), dict(eos_token_id=[a[4], b[2], c[6]]),
        dict(suppress_tokens=[a[0], b[1], c[2]]), dict(begin_suppress_tokens=[a[0], b[0], c[0]]),
        dict(forced_bos_token_id=9), dict(forced_eos_token_id=1), dict(max_new_tokens=1),
        dict(forced_bos_token_id=9, begin_suppress_tokens=[a[0], a[1], b[1], c[1]], forced_eos_token_id=12),
        dict(bad_words_ids=[[a[0]], [1]], sequence_bias=biases[1:], repetition_penalty=1.2, no_repeat_ngram_size=3,
             min_new_tokens=4, suppress_tokens=[c[0]], forced_eos_token_id=1),
    ]
    beams = [dict(num_beams=n, length_penalty=p, early_stopping=e)
             for n in (2, 4) for p in (-1.0, 0.0, 0.6, 1.0, 2.0) for e in (False, True, "never")]
    shaped = [dict(case, eos_token_id=[1, a[2], c[1]], no_repeat_ngram_size=2, bad_words_ids=[[a[0]], b[0:2]],
                   sequence_bias=[[[1], 1.5]] + biases[2:], repetition_penalty=1.1) for case in beams]
    several = [dict(num_beams=n, num_return_sequences=n, length_penalty=p, early_stopping=e, **rest)
               for n in (2, 4) for p, e in ((1.0, False), (-1.0, True), (2.0, "never"))
               for rest in (dict(), dict(eos_token_id=[1, a[2], b[1], c[1]], min_new_tokens=3))]
    most = [t for t in range(vocabulary) if t not in (1, a[0], b[0], c[0])]
    others = [
        dict(num_beams=3, min_new_tokens=6, eos_token_id=[1, a[1], b[2], c[3]]), dict(num_beams=4, max_new_tokens=1),
        dict(num_beams=4, suppress_tokens=most), dict(num_beams=2, forced_bos_token_id=9, forced_eos_token_id=1),
        dict(num_beams=4, num_return_sequences=2, suppress_tokens=[a[0], b[1]], begin_suppress_tokens=[c[0], 1]),
    ]
    return [dict(max_new_tokens=MOST) | case for case in greedy + beams + shaped + several + others]


def drawn(model, length):
    """A prompt with an answer that is long enough to be shaped."""
    while True:
        prompt = torch.randint(2, model.config.vocab_size, (length,)).tolist()
        [answer] = answers(model, prompt, dict(max_new_tokens=MOST))
        if len(answer) > 6:
            return prompt, answer


def made(name):
    directory = HERE / name
    config = AutoConfig.from_pretrained(directory)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = kind.from_pretrained(directory, attn_implementation="eager").double().eval()
    for seed in range(200):
        torch.manual_seed(seed)
        prompts, plain = zip(*(drawn(model, n) for n in PROMPT_LENGTHS))
        cases = kinds(plain, config.vocab_size)
        outputs = []
        for case in cases:
            outputs.append([certain(model, prompt, case) for prompt in prompts])
            if None in outputs[-1]:
                break
        if None in outputs[-1]:
            print(f"{name}: seed {seed} will not do, a near tie with {cases[len(outputs) - 1]}", flush=True)
            continue
        # Decoder-only models have no first token to force, and what is repeated without end is not repeated more.
        changed = lambda case: "num_beams" not in case and case.get("repetition_penalty") != 0.8
        idle = [c for c, said in zip(cases, outputs) if changed(c) and [a for a, in said] == list(plain)]
        expected = 1 if config.is_encoder_decoder else 2
        if len(idle) > expected:
            print(f"{name}: seed {seed} will not do, nothing changes with {idle}")
            continue
        said = dict(prompts=prompts, cases=[dict(settings=c, outputs=o) for c, o in zip(cases, outputs)])
        (directory / "decoding.json").write_text(json.dumps(said, separators=(",", ":")) + "\n")
        lengths = sorted({len(row) for case in outputs for rows in case for row in rows})
        print(f"{name}: seed {seed}, {len(cases)} cases, answers of {lengths} tokens", flush=True)
        return
    sys.exit(f"{name}: no seed will do")


for name in sys.argv[1:] or MODELS:
    made(name)
