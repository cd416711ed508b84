"""BERTScore of `benches/bertscore.rs` by the package bert-score: one task for each line on standard input, `FILE LAYER`, answered by
`seconds pairs`; the F1 values go to `FILE.f1`. At the end of the input it says its peak memory in MiB.

Needs bert-score 0.3.13 with torch and transformers 4.57.
"""

import argparse
import json
import os
import resource
import sys
import time

arguments = argparse.ArgumentParser()
arguments.add_argument("--model", required=True, help="the directory that the bench is given")
arguments.add_argument("--batch", type=int, default=64, help="texts and pairs in a batch; bert-score's own default is 64")
arguments.add_argument("--threads", type=int, default=os.cpu_count())
options = arguments.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)

import torch  # noqa: E402
from bert_score import BERTScorer  # noqa: E402

torch.set_num_threads(options.threads)
scorers = {}
for line in sys.stdin:
    path, layer = line.rsplit(maxsplit=1)
    with open(path, encoding="utf-8") as file:
        pairs = json.load(file)
    if layer not in scorers:
        scorers[layer] = BERTScorer(model_type=options.model, num_layers=int(layer), batch_size=options.batch, device="cpu")
        scorers[layer].score(["to warm up"], ["to be warm"])
    started = time.perf_counter()
    _, _, f1 = scorers[layer].score(pairs["candidates"], pairs["references"], batch_size=options.batch)
    seconds = time.perf_counter() - started
    with open(path + ".f1", "w", encoding="utf-8") as file:
        json.dump(f1.tolist(), file)
    print(seconds, len(f1), flush=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)
