"""RPO on a feedback file in PyTorch, a fresh flan-t5-small shape: the peers of `benches/real.rs`.

`--loop published` does what the published script does: every text padded to 512 tokens, batches of 16 accumulated to 32, the
full vocabulary's cross-entropy twice (the model's own, unused, and the one by token), the reference under no_grad in every
batch, the partitions by a pass of single rows before. Batches of 16 need more than 23 GB; `--batch 8` does the same work. `--loop tuned` is what a careful user would write: rows of similar length
together with no more padding than they need, reference scores computed once in such batches, one cross-entropy, fused AdamW.

A line `reference` on standard input asks for the pass over the reference, a line `step` for an optimizer step; each is
answered by `seconds rows`. After `--steps` steps or at the end of the input it says its peak memory in MiB and ends. Needs
torch and transformers 4.57.
"""

import argparse
import json
import os
import random
import resource
import sys
import time

arguments = argparse.ArgumentParser()
arguments.add_argument("--data", required=True, help="JSONL with `prompt` and `responses`")
arguments.add_argument("--tokenizer", required=True, help="directory with tokenizer.json")
arguments.add_argument("--loop", choices=["published", "tuned"], required=True)
arguments.add_argument("--reference-rows", type=int, default=0, help="rows of the reference pass; 0 for all")
arguments.add_argument("--steps", type=int, default=0, help="0 for as many as are asked for")
arguments.add_argument("--batch", type=int, default=16, help="rows of a micro-batch of the published loop")
arguments.add_argument("--budget", type=int, default=4096, help="padded tokens of a micro-batch of the tuned loop")
arguments.add_argument("--threads", type=int, default=os.cpu_count())
options = arguments.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration, get_scheduler

LONGEST, TAU, STEP = 512, 5.0, 32
PUBLISHED = options.loop == "published"
torch.set_num_threads(options.threads)
torch.set_flush_denormal(True)
torch.manual_seed(42)

tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{options.tokenizer}/tokenizer.json")
encode = lambda text: tokenizer(text, truncation=True, max_length=LONGEST)["input_ids"]
rows = []
for group, line in enumerate(open(options.data)):
    record = json.loads(line)
    prompt = encode(record["prompt"])
    for response in record["responses"]:
        rows.append(dict(group=group, x=prompt, y=encode(response["text"]), r=float(response["reward"])))
rewards = torch.tensor([row["r"] for row in rows])
for row, reward in zip(rows, ((rewards - rewards.mean()) / (rewards.std() + 1e-8)).tolist()):
    row["r"] = reward

config = T5Config(
    vocab_size=32128, d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_decoder_layers=8, num_heads=6,
    feed_forward_proj="gated-gelu", dropout_rate=0.1 if PUBLISHED else 0.0, tie_word_embeddings=False, use_cache=False,
    pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
)
policy = T5ForConditionalGeneration(config).train()
reference = T5ForConditionalGeneration(config).eval()
reference.load_state_dict(policy.state_dict())


def padded(lists, value):
    longest = LONGEST if PUBLISHED else max(map(len, lists))
    return torch.tensor([ids + [value] * (longest - len(ids)) for ids in lists])


def log_probs(model, batch):
    """Mean log-probability by row."""
    x, y = padded([row["x"] for row in batch], 0), padded([row["y"] for row in batch], -100)
    mask = (torch.arange(x.shape[1]) < torch.tensor([len(row["x"]) for row in batch])[:, None]).long()
    if PUBLISHED:
        logits = model(input_ids=x, attention_mask=mask, labels=y).logits
    else:
        inputs = torch.cat([torch.zeros(len(batch), 1, dtype=torch.long), y[:, :-1].clamp(min=0)], 1)
        logits = model(input_ids=x, attention_mask=mask, decoder_input_ids=inputs).logits
    tokens = cross_entropy(logits.view(-1, logits.size(-1)), y.view(-1), reduction="none").view(y.shape)
    return -tokens.sum(1) / (y != -100).sum(1)


def micro_batches(batch):
    """Rows of similar length, no more padded tokens together than the budget."""
    if PUBLISHED:
        return [batch[i : i + options.batch] for i in range(0, len(batch), options.batch)]
    cut, longest = [[]], (0, 0)
    for row in sorted(batch, key=lambda row: (len(row["y"]), len(row["x"]))):
        wider = max(longest[0], len(row["x"])), max(longest[1], len(row["y"]))
        if cut[-1] and sum(wider) * (len(cut[-1]) + 1) > options.budget:
            cut.append([])
            wider = len(row["x"]), len(row["y"])
        cut[-1].append(row)
        longest = wider
    return cut


def reference_pass():
    """Targets of the log-ratio; the published loop's partitions need each prompt's rows."""
    wanted = rows[: options.reference_rows or len(rows)]
    with torch.no_grad():
        for batch in [[row] for row in wanted] if PUBLISHED else micro_batches(wanted):
            for row, value in zip(batch, log_probs(reference, batch).tolist()):
                row["reference"] = value
    partition = {}
    for row in wanted:
        partition.setdefault(row["group"], []).append(row["reference"] + row["r"] / TAU)
    partition = {group: TAU * torch.tensor(terms).logsumexp(0).item() for group, terms in partition.items()}
    usual = sum(partition.values()) / len(partition)
    for row in rows:
        row["target"] = (row["r"] - partition.get(row["group"], usual)) / TAU
    return len(wanted)


def epochs():
    """Rows of one optimizer step after the other: shuffled, in the tuned loop shuffled batches of similar length."""
    while True:
        order = rows[:]
        random.Random(42).shuffle(order)
        if not PUBLISHED:
            order.sort(key=lambda row: len(row["y"]) // 16)
        batches = [order[i : i + STEP] for i in range(0, len(order), STEP)]
        random.Random(43).shuffle(batches)
        yield from batches


optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4, fused=None if PUBLISHED else True)
schedule = get_scheduler("linear", optimizer, 10, 10_000)
batches = epochs()


def step():
    batch = next(batches)
    for part in micro_batches(batch):
        ours = log_probs(policy, part)
        if PUBLISHED:
            with torch.no_grad():
                theirs = log_probs(reference, part)
        else:
            theirs = torch.tensor([row["reference"] for row in part])
        target = torch.tensor([row["target"] for row in part])
        (0.5 * ((ours - theirs - target) ** 2).sum() / len(batch)).backward()
    if not PUBLISHED:
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    return len(batch)


steps = 0
for line in sys.stdin:
    started = time.perf_counter()
    done = reference_pass() if line.strip() == "reference" else step()
    print(time.perf_counter() - started, done, flush=True)
    steps += line.strip() == "step"
    if steps == options.steps > 0:
        break
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)
