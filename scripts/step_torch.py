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
options = arguments.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)

import torch
from transformers import T5Config, T5ForConditionalGeneration

BATCH, PROMPT, RESPONSE = 8, 256, 128
torch.set_num_threads(options.threads)
torch.manual_seed(1)
config = T5Config(
    vocab_size=32128, d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_decoder_layers=8, num_heads=6,
    feed_forward_proj="gated-gelu", dropout_rate=0.0, tie_word_embeddings=False, use_cache=False,
    pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
)
model = T5ForConditionalGeneration(config).train()
prompts = torch.randint(3, 32000, (BATCH, PROMPT))
labels = torch.randint(3, 32000, (BATCH, RESPONSE))
inputs = torch.cat([torch.zeros(BATCH, 1, dtype=torch.long), labels[:, :-1]], 1)
target = torch.linspace(-11.0, -9.0, BATCH)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)


def loss():
    logits = model(input_ids=prompts, decoder_input_ids=inputs).logits
    tokens = -torch.nn.functional.cross_entropy(logits.view(-1, 32128), labels.view(-1), reduction="none")
    return 0.5 * ((tokens.view(BATCH, RESPONSE).mean(1) - target) ** 2).mean()


step = torch.compile(loss) if options.compile else loss
for _ in sys.stdin:
    started = time.perf_counter()
    step().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    print(time.perf_counter() - started, BATCH, flush=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)
