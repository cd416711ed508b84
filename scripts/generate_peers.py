"""The answers of `benches/generate.rs` by transformers or CTranslate2: one task for each line on standard input, `MODE BATCH PROMPT
NEW`, answered by `seconds answers`.

At the end of the input it says its peak memory in MiB, that of loading aside for CTranslate2, which is given a converted model.
Needs torch and transformers 4.57, or ctranslate2 (and both to convert).
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time

arguments = argparse.ArgumentParser()
arguments.add_argument("--engine", choices=["transformers", "ctranslate2"], default="transformers")
arguments.add_argument("--size", choices=["small", "smollm2"], default="small")
arguments.add_argument("--weights", choices=["f32", "int8"], default="f32", help="int8: CTranslate2 alone")
arguments.add_argument("--threads", type=int, default=os.cpu_count())
arguments.add_argument("--convert", help="write the model for CTranslate2 to this directory and end")
options = arguments.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)


def fresh():
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, T5Config, T5ForConditionalGeneration

    torch.manual_seed(1)
    torch.set_num_threads(options.threads)
    if options.size == "small":
        return T5ForConditionalGeneration(T5Config(
            vocab_size=32128, d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_decoder_layers=8, num_heads=6,
            feed_forward_proj="gated-gelu", dropout_rate=0.0, tie_word_embeddings=False,
            pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        )).eval()
    return AutoModelForCausalLM.from_config(LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True, rms_norm_eps=1e-5, pad_token_id=0,
    )).eval()


def convert(directory):
    from ctranslate2.converters import transformers as loaders

    model = fresh()
    tokens = [f"<{i}>" for i in range(model.config.vocab_size)]
    if options.size == "small":
        spec = loaders.T5Loader().get_model_spec(model)
        spec.register_source_vocabulary(tokens)
        spec.register_target_vocabulary(tokens)
        spec.config.decoder_start_token = tokens[0]
        spec.config.eos_token = tokens[1]
    else:
        spec = loaders.LlamaLoader().get_model_spec(model)
        spec.register_vocabulary(tokens)
        spec.config.eos_token = tokens[2]
        spec.config.bos_token = tokens[1]
    spec.config.unk_token = tokens[2]
    spec.validate()
    spec.optimize(quantization="int8" if options.weights == "int8" else "float32")
    spec.save(directory)


def prompts(batch, longest):
    """As many tokens as in the bench: every second prompt is shorter, down to half as long."""
    lengths = [longest - (i % 2) * (i * longest // batch // 2) for i in range(batch)]
    return [[3 + (i * 7919 + seed * 104729) % 32000 for i in range(n)] for seed, n in enumerate(lengths)]


def by_transformers():
    import torch

    model = fresh()
    modes = {
        "greedy": dict(do_sample=False),
        "published": dict(do_sample=True, temperature=0.7, top_k=50, top_p=0.95, repetition_penalty=1.2,
                          no_repeat_ngram_size=3),
        "beam4": dict(do_sample=False, num_beams=4),
    }

    def answer(mode, batch, longest, new):
        rows = prompts(batch, longest)
        ids = torch.zeros(batch, longest, dtype=torch.long)
        mask = torch.zeros(batch, longest, dtype=torch.long)
        for i, row in enumerate(rows):
            # Decoder-only models are padded on the left.
            at = slice(0, len(row)) if options.size == "small" else slice(longest - len(row), longest)
            ids[i, at], mask[i, at] = torch.tensor(row), 1
        with torch.inference_mode():
            out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, **modes[mode])
        assert out.shape[1] == new + (1 if options.size == "small" else longest)

    return answer


def by_ctranslate2():
    import ctranslate2

    directory = tempfile.TemporaryDirectory()
    # In a process of its own, whose memory is not counted.
    subprocess.run([sys.executable, __file__, "--convert", directory.name, "--size", options.size, "--weights",
                    options.weights], check=True, stdout=subprocess.DEVNULL)
    kind = "int8" if options.weights == "int8" else "float32"
    settings = dict(device="cpu", compute_type=kind, inter_threads=1, intra_threads=options.threads)
    modes = {
        "greedy": dict(beam_size=1),
        "published": dict(beam_size=1, sampling_temperature=0.7, sampling_topk=50, sampling_topp=0.95,
                          repetition_penalty=1.2, no_repeat_ngram_size=3),
        "beam4": dict(beam_size=4),
    }
    if options.size == "small":
        model = ctranslate2.Translator(directory.name, **settings)
    else:
        model = ctranslate2.Generator(directory.name, **settings)

    def answer(mode, batch, longest, new):
        texts = [[f"<{i}>" for i in row] for row in prompts(batch, longest)]
        if options.size == "small":
            out = model.translate_batch(texts, max_batch_size=0, max_input_length=0, max_decoding_length=new,
                                        min_decoding_length=new, **modes[mode])
            assert all(len(one.hypotheses[0]) == new for one in out)
        else:
            out = model.generate_batch(texts, max_batch_size=0, max_length=new, min_length=new,
                                       include_prompt_in_result=False, **modes[mode])
            assert all(len(one.sequences[0]) == new for one in out)

    answer.keep = directory
    return answer


def peak():
    """In MiB: what the system counts of a process that was started by another may be the other's."""
    try:
        lines = open("/proc/self/status").read().splitlines()
        return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if options.convert:
    convert(options.convert)
    sys.exit()
answer = by_transformers() if options.engine == "transformers" else by_ctranslate2()
answer("greedy", 1, 16, 4)
for line in sys.stdin:
    mode, *numbers = line.split()
    batch, longest, new = map(int, numbers)
    started = time.perf_counter()
    answer(mode, batch, longest, new)
    print(time.perf_counter() - started, batch, flush=True)
print(peak(), flush=True)
