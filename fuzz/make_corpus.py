"""Writes the seeds of the fuzz targets into fuzz/corpus/TARGET/: small inputs that are valid, from which libFuzzer starts.

Inputs that once failed lie beside them (fault-*) and are left alone. Needs pyarrow, zstandard, blake3 and crc32c.
"""

import gzip
import hashlib
import io
import json
import struct
from pathlib import Path

import blake3
import crc32c
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

HERE = Path(__file__).parent
GOLDENS = HERE.parent / "crates/rpo/tests/goldens"


def seeds(target, inputs):
    directory = HERE / "corpus" / target
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in inputs.items():
        (directory / name).write_bytes(data.encode() if isinstance(data, str) else data)


def dumps(value):
    return json.dumps(value, ensure_ascii=False)


def turns(answer):
    return [{"role": "user", "content": "p"}, {"role": "assistant", "content": answer}]


ROWS = [{"prompt": "p", "response": "a]}", "reward": 1}, {"prompt": "p", "response": 'b, "c"\n', "reward": 0.5}]
LINES = "".join(dumps(row) + "\n" for row in ROWS)
LAYOUTS = {
    "trl-unpaired": {"prompt": "p", "completion": "x", "label": True},
    "trl-pair": {"prompt": "p", "chosen": "x", "rejected": "y"},
    "scored-pair": {"chosen": turns("x"), "rejected": turns("y"), "score_chosen": 9, "score_rejected": 3},
    "hh": {"chosen": "\n\nHuman: p\n\nAssistant: x", "rejected": "\n\nHuman: p\n\nAssistant: y"},
    "shp": {"history": "p", "human_ref_A": "x", "human_ref_B": "y", "score_A": 7, "score_B": 2},
    "helpsteer": {"prompt": "p", "response": "x", "helpfulness": 4, "correctness": 1, "verbosity": 2},
    "argilla": {"prompt": "p", "response": "x", "rating": [{"user_id": "a", "value": 5, "status": "submitted"}]},
    "argilla-flat": {"prompt": "p", "response": "x", "rating.responses": [5, 1], "rating.responses.status": ["submitted", "draft"]},
    "langfuse": {"input": "p", "output": {"role": "assistant", "content": "x"}, "scores": {"thumb": "up"}},
    "label-studio": {"data": {"prompt": "p", "response": "x"}, "annotations": [{"result": [{"from_name": "r", "value": {"rating": 4}}]}]},
    "open-webui": {
        "data": {"rating": -1},
        "meta": {"message_id": "b"},
        "snapshot": {"chat": {"chat": {"history": {"currentId": "b", "messages": {
            "a": {"role": "user", "content": "p", "parentId": None},
            "b": {"role": "assistant", "content": "x", "parentId": "a"}}}}}},
    },
    "ultrafeedback": {"instruction": "p", "completions": [{"response": "x", "overall_score": 7.5, "annotations": {"honesty": {"Rating": "4"}}}]},
    "nested": {"prompt": "p", "responses": [{"text": "x", "reward": 1}, {"text": "y", "reward": 0}]},
    "lists": {"prompt": "p", "responses": ["x", "y"], "reward": [1, 2]},
    "messages": {"messages": turns("x"), "label": "good"},
    "written": {"prompt": dumps(turns("x")[:1]), "response": "[{'role': 'assistant', 'content': 'x'}]", "reward": "4 stars"},
}
JSON = {
    "lines": LINES,
    "array": dumps(ROWS),
    "key": dumps({"status": "ok", "result": {"n": 2, "records": ROWS}}),
    "columns": dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}),
    "by-index": dumps({name: {str(i): row[name] for i, row in enumerate(ROWS)} for name in ROWS[0]}),
    "split": dumps({"columns": list(ROWS[0]), "index": [0, 1], "data": [list(row.values()) for row in ROWS]}),
    "viewer": dumps({"features": [{"name": "prompt"}], "rows": [{"row_idx": 0, "row": ROWS[0], "truncated_cells": []}]}),
    "numbers": '{"prompt":"p","response":"x","reward":NaN}\n{"prompt":"p","response":"y","reward":-1e-3}\n',
} | {name: dumps(row) + "\n" for name, row in LAYOUTS.items()}
CSV = {
    "commas": 'prompt,response,reward\r\np,"a ""b""\nc",1\r\nq,d,0.5\r\n',
    "semicolons": "sep=;\nprompt;response;reward\np;a;1\n",
    "tabs": "prompt\tresponse\treward\np\ta\t1\n",
    "bars": "prompt|response|label\np|a|yes\np|b|no\n",
    "marked": "\ufeffprompt,completion,label\np,x,TRUE\np,y,FALSE\n",
}


def tables():
    table = pa.table({
        "prompt": pa.array(["p", "p"]),
        "response": pa.array(["a", "b"]).dictionary_encode(),
        "reward": pa.array([1, None], pa.int8()),
    })
    nested = pa.table({"prompt": ["p"], "responses": [[{"text": "x", "reward": 1.0}, {"text": "y", "reward": 0.0}]]})
    found = {}
    for name, data in {"flat": table, "nested": nested}.items():
        for codec in ["none", "snappy", "zstd"] if name == "flat" else ["none"]:
            out = io.BytesIO()
            pq.write_table(data, out, compression=codec, store_schema=False)
            found[f"{name}-{codec}.parquet"] = out.getvalue()
        for kind, new in {"file": pa.ipc.new_file, "stream": pa.ipc.new_stream}.items():
            out = io.BytesIO()
            with new(out, data.schema, options=pa.ipc.IpcWriteOptions(compression="zstd" if name == "nested" else None)) as writer:
                writer.write_table(data)
            found[f"{name}-{kind}.arrow"] = out.getvalue()
    return found


def safetensors(tensors, metadata=None):
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def parts(*records):
    data = b""
    for rows, values in records:
        record = struct.pack(f"<I{len(rows)}I{len(values)}f", len(rows), *rows, *values)
        data += record + struct.pack("<I", crc32c.crc32c(record))
    return data


def kept_tokens():
    names = ["rows", "without_tokens", "prompts", "folded_prompts", "folded_by_cut", "duplicates", "conflicting_duplicates",
             "alike_by_cut", "conflicting_by_cut", "tied_prompts", "cut_prompts", "single_responses", "templated_prompts",
             "prompts_beside_template", "truncated_prompts", "truncated_responses", "tokens", "unknown_tokens",
             "special_texts", "folded_line_breaks"]
    summary = dumps(dict.fromkeys(names, 1) | {"notes": ["n"]}).encode()
    ids = lambda *ids: struct.pack(f"<Q{len(ids)}I", len(ids), *ids)
    response = lambda row: struct.pack("<QBdQ", row, 0, 0.5, 1) + ids(7, 1)
    data = struct.pack("<Q", len(summary)) + summary + struct.pack("<Q", 1)
    data += struct.pack("<Q", 0) + ids(5, 1) + struct.pack("<Q", 2) + response(0) + response(1)
    return data + blake3.blake3(data).digest()


TEMPLATES = {
    "marks": "{% for m in messages %}{{ '<|im_start|>' ~ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
             "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "python": "{%- set ns = namespace(n=0) -%}{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ m.content.split(' ')[-1].upper() }}"
              "{% endfor %}{{ ns.n }}{{ messages | tojson(indent=2) }}{% generation %}x{% endgeneration %}",
    "refuses": "{{ bos_token }}{% if messages[0].role != 'user' %}{{ raise_exception('first a user') }}{% endif %}"
               "{% macro say(m) %}[{{ m.content }}]{% endmacro %}{% for m in messages %}{{ say(m) }}{% endfor %}",
    "settings": dumps({"bos_token": "<s>", "eos_token": {"content": "</s>"},
                       "chat_template": [{"name": "default", "template": "{{ bos_token }}{{ messages[-1]['content'] }}"}]}),
}


def tokenizers():
    special = lambda id, content: {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
                                   "normalized": False, "special": True}
    added = [special(i, token) for i, token in enumerate(["<pad>", "</s>", "<unk>"])]
    base = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": None, "post_processor": None, "decoder": None}
    post = {"type": "TemplateProcessing", "pair": [], "single": [{"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "</s>", "type_id": 0}}], "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}}
    tokens = ["<pad>", "</s>", "<unk>", "▁", "S", "a", "y", "e", "s"]
    vocab = {token: i for i, token in enumerate(tokens)}
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "words": base | {"pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": post,
                         "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}},
        "unigram": base | {"pre_tokenizer": metaspace, "decoder": metaspace, "post_processor": post,
                           "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
                           "model": {"type": "Unigram", "unk_id": 2, "byte_fallback": False, "vocab": [[token, -float(i)] for i, token in enumerate(tokens)]}},
        "bpe": base | {"pre_tokenizer": byte_level, "decoder": byte_level, "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
                       "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
                                 "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab | {"ay": 9, "es": 10}, "merges": [["a", "y"], ["e", "s"]]}},
        "word-piece": base | {"normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
                              "pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
                              "model": {"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab | {"##y": 9}}},
    }


def chat(message, **more):
    return dumps({"choices": [{"message": {"role": "assistant", "content": message}, "finish_reason": "stop"} | more],
                  "usage": {"prompt_tokens": 12, "completion_tokens": 1}})


def copies(pattern):
    return {f"{path.parent.name}.json": path.read_bytes() for path in sorted(GOLDENS.glob(pattern))}


def main():
    seeds("feedback_json", JSON)
    seeds("feedback_csv", CSV)
    seeds("feedback_tables", tables())
    seeds("feedback_compressed", {
        "gzip": gzip.compress(LINES.encode(), mtime=0),
        "members": gzip.compress(LINES[:30].encode(), mtime=0) + gzip.compress(LINES[30:].encode(), mtime=0),
        "zstd": zstandard.compress(LINES.encode()),
        "frames": b"\x50\x2a\x4d\x18\x04\0\0\0skip" + zstandard.compress(CSV["commas"].encode()),
        "utf-16": ("\ufeff" + LINES).encode("utf-16-le"),
        "utf-16-be": dumps(ROWS).encode("utf-16-be"),
    })
    seeds("prompts", {"lines": "Say yes.\n\nSay no.\n", "jsonl": '{"prompt":"p","id":7,"output":"x"}\n',
                      "messages": dumps([{"prompt": turns("")[:1], "response": "x"}])})
    seeds("model_config", copies("*/config.json"))
    seeds("encoder_config", copies("encoders/*/config.json"))
    seeds("tokenizer", {name: dumps(value) for name, value in tokenizers().items()})
    seeds("chat_template", TEMPLATES)
    seeds("generation_config", {
        "beams": '{"num_beams":4,"length_penalty":1.2,"early_stopping":true,"max_length":256,"min_length":3,"no_repeat_ngram_size":3,'
                 '"eos_token_id":[1,7],"typical_p":0.9,"suppress_tokens":[5],"forced_eos_token_id":1,"sequence_bias":[[[3,4],-0.3]],"bad_words_ids":[[2,3],[9]]}',
        "sample": '{"do_sample":true,"temperature":0.7,"top_k":50,"top_p":0.95,"min_p":0.1,"eta_cutoff":3e-4,"repetition_penalty":1.2,"stop_strings":["END"],"max_new_tokens":9}',
    })
    seeds("adapter_config", copies("lora_*/adapter_config.json"))
    values = struct.pack("<4f", 1.5, -2.0, 0.0, 3.0)
    seeds("safetensors", {
        "scores": safetensors({"log_probs": ("F32", [4], values)}, {"blake3": blake3.blake3(values).hexdigest()}),
        "dtypes": safetensors({"a": ("F32", [2, 2], values), "b": ("BF16", [2], b"\x80?\x80?"), "c": ("F16", [1], b"\0<"), "d": ("I64", [1], b"\1" + 7 * b"\0")}),
        "scalar": safetensors({"s": ("F32", [], values[:4]), "none": ("F32", [0], b"")}),
    })
    seeds("shard_index", {"two": dumps({"metadata": {"total_size": 8}, "weight_map": {
        "shared.weight": "model-00001-of-00002.safetensors", "lm_head.weight": "model-00002-of-00002.safetensors"}})})
    seeds("checksums", {"two": f"{'0' * 64}  config.json\n{hashlib.sha256(b'saved').hexdigest()}  saved\n"})
    seeds("reference_parts", {"two": parts(([2, 0], [1.0, 2.0, 3.0, 4.0]), ([3], [float("nan"), 6.0]))})
    seeds("kept_tokens", {"one": kept_tokens()})
    places = [{"token": "A", "logprob": -0.1, "top_logprobs": [{"token": "A", "logprob": -0.1}, {"token": "B", "logprob": -2.5}]}]
    seeds("judge_reply", {
        "whole": chat("A", logprobs={"content": places}),
        "thought": chat("<think>B?</think>\n[[A]]"),
        "rating": chat("**9/10**"),
        "parts": chat([{"type": "text", "text": "m"}]),
        "stream": ': ping\n\ndata: {"choices":[{"delta":{"content":"[["}}]}\r\n\r\ndata: {"choices":[{"delta":{"content":"B]]"}}]}\n\ndata: [DONE]\n\n',
        "error": '{"error":{"message":"overloaded","code":503}}',
    })
    seeds("verdicts", {
        "given": '{"prompt":"p","first":"a","second":"b","verdict":"A"}\n{"prompt":"p","response":"a","verdict":7}\n',
        "store": dumps({"key": "ab" * 32, "question": "cd" * 16, "judge": "j at x", "template": "short", "time": "2026-01-01T00:00:00Z",
                        "request": {}, "reply": "A"}) + "\n",
    })
    seeds("resume_state", {"progress": dumps({"step": 4, "best": [0.5, 3], "first_validation": 1.0, "last_validation": 0.5,
                                              "validated_at": 3, "start": 1.0, "best_by": "loss", "waited": 0}),
                           "old": '{"step": 1, "best": null, "first_validation": null}'})


main()
