#!/usr/bin/env bash
# Trains a model by SFT, RPO, DRO and KTO, has them answer held-out prompts with the published sampling, has judges compare
# the answers, and writes the model card with its table of win rates:
#
#   examples/model-card/run.sh google/flan-t5-large openbmb/UltraFeedback runs/card \
#     --judge-url http://localhost:8000/v1 --judge-model mistralai/Mistral-7B-Instruct-v0.3 \
#     --judge-url http://localhost:8001/v1 --judge-model meta-llama/Llama-3.1-8B-Instruct
#
# MODEL is a hub id or a directory, DATA any file of rated responses or a data set of the hub; what follows the third argument
# goes to `rpo evaluate` (judges, --bertscore roberta-large, --toxicity s-nlp/roberta_toxicity_classifier, --metrics ...).
# Stopped, the same command goes on. RPO names the program, COMPARE a TOML file beside the one here (adapters, rates, steps),
# FRACTION the share of prompts held out for the judges, LICENSE the licence that the card states.
set -euo pipefail
if [ $# -lt 3 ]; then
  sed -n '2,13s/^# \{0,1\}//p' "$0"
  exit 2
fi
rpo=${RPO:-rpo}
here=$(cd "$(dirname "$0")" && pwd)
model=$1 data=$2 out=$3
shift 3
mkdir -p "$out"
resume() { [ ! -e "$1" ] || echo --resume; }

split="$data, ${FRACTION:-0.02} held out"
if [ -e "$out/split" ] && [ "$(cat "$out/split")" != "$split" ]; then
  echo "$out was begun with $(cat "$out/split"), and now it is $split; choose another directory" >&2
  exit 1
fi
echo "$split" > "$out/split"
[ -e "$out/test.jsonl" ] || "$rpo" convert "$data" --out "$out/train.jsonl" --held-out "$out/test.jsonl" --fraction "${FRACTION:-0.02}"

# shellcheck disable=SC2046
"$rpo" compare --config "${COMPARE:-$here/compare.toml}" --model "$model" --data "$out/train.jsonl" --out "$out/trained" \
  $(resume "$out/trained/start.json")

models=()
for objective in rpo dro kto sft; do
  models+=(--model "$objective=$out/trained/$objective-42/best")
done
# shellcheck disable=SC2046
"$rpo" evaluate "${models[@]}" --model "start=$model" --prompts "$out/test.jsonl" --references "$out/test.jsonl" \
  --out "$out/evaluation" $(resume "$out/evaluation/evaluate.json") "$@"

"$rpo" card "$out/trained/rpo-42/best" --evaluation "$out/evaluation/evaluation.json" ${LICENSE:+--license "$LICENSE"} --force
echo "card: $out/trained/rpo-42/best/README.md"
