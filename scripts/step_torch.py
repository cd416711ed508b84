"""The step of `benches/step.rs` in PyTorch: one step for each line on standard input, answered by `seconds responses`.

At the end of the input it says its peak memory in MiB. Needs torch and transformers 4.57.
"""

import argparse
import os
import resource
import sys
import time

arguments = argparse.ArgumentParser()
arguments.add_argument("--compile", action="store_true")
arguments.add_argument("--threads", type=int, default=os.cpu_count())
arguments.add_argument("--size", choices=["small", "base", "large", "smollm2"], default="small")
arguments.add_argument("--device", default="cpu")
arguments.add_argument("--autocast", action="store_true", help="forward in bf16")
arguments.add_argument("--tf32", action="store_true", help="products of f32 in TF32, on NVIDIA's GPUs")
arguments.add_argument("--responses", type=int, default=1, help="of each prompt")
arguments.add_argument("--micro", type=int, default=8, help="rows of prompt and response that are computed at once")
arguments.add_argument("--attention", choices=["eager", "sdpa"], default="sdpa", help="of the decoder-only model")
options = arguments.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, T5Config, T5ForConditionalGeneration

BATCH, PROMPT, RESPONSE = 8, 256, 128
ROWS = BATCH * options.responses
torch.set_num_threads(options.threads)
torch.manual_seed(1)
# A fresh T5 gives denormal numbers, which slow some processors down many times.
torch.set_flush_denormal(True)
torch.backends.cuda.matmul.allow_tf32 = options.tf32
device = torch.device(options.device)
cuda = device.type == "cuda"
t5 = options.size != "smollm2"
if t5:
    width, inner, layers, heads = {
        "small": (512, 1024, 8, 6), "base": (768, 2048, 12, 12), "large": (1024, 2816, 24, 16),
    }[options.size]
    model = T5ForConditionalGeneration(T5Config(
        vocab_size=32128, d_model=width, d_kv=64, d_ff=inner, num_layers=layers, num_decoder_layers=layers, num_heads=heads,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, tie_word_embeddings=False, use_cache=False,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )).train()
else:
    model = AutoModelForCausalLM.from_config(LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True, rms_norm_eps=1e-5, use_cache=False,
    ), attn_implementation=options.attention).train()
model = model.to(device)
prompts = torch.randint(3, 32000, (BATCH, PROMPT)).repeat_interleave(options.responses, 0)
labels = torch.randint(3, 32000, (ROWS, RESPONSE))
inputs = torch.cat([torch.zeros(ROWS, 1, dtype=torch.long), labels[:, :-1]], 1)
target = torch.linspace(-11.0, -9.0, ROWS)
prompts, labels, inputs, target = (x.to(device) for x in (prompts, labels, inputs, target))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)


def loss(rows):
    if t5:
        logits = model(input_ids=prompts[rows], decoder_input_ids=inputs[rows]).logits
    else:
        # Logits of the response alone; the last position predicts nothing.
        whole = torch.cat([prompts[rows], labels[rows]], 1)
        logits = model(input_ids=whole, logits_to_keep=RESPONSE + 1).logits[:, :-1]
    tokens = -torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[rows].flatten(), reduction="none")
    return 0.5 * ((tokens.view(-1, RESPONSE).mean(1) - target[rows]) ** 2).sum() / ROWS


step = torch.compile(loss) if options.compile else loss
for _ in sys.stdin:
    started = time.perf_counter()
    for first in range(0, ROWS, options.micro):
        with torch.autocast(device.type, torch.bfloat16, enabled=options.autocast):
            part = step(slice(first, first + options.micro))
        part.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if cuda:
        torch.cuda.synchronize()
    print(time.perf_counter() - started, ROWS, flush=True)
peak = torch.cuda.max_memory_allocated() / 1024 if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak / 1024, flush=True)
