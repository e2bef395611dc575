#!/bin/sh
# AIPerf's view of the OpenAI route: streamed answers about 640x480 JPEGs, for a bounded time.
#
#   pip install aiperf==0.13.0                            (in an environment of its own: it brings a great deal along)
#   bench/profiles/aiperf.sh [URL [TOKENIZER-FOLDER]]     CONCURRENCY=, LOAD_SECONDS= (at most 300), API_KEY=
set -eu
url=${1:-http://127.0.0.1:5000}
tokenizer=$(realpath "${2:-demo/checkpoint}")
seconds=${LOAD_SECONDS:-30}
[ "$seconds" -le 300 ] || seconds=300
exec aiperf profile \
    --url "$url" \
    --model GLM-4.6V-Flash-WEB \
    --tokenizer "$tokenizer" \
    --endpoint-type chat \
    --endpoint /v1/chat/completions \
    --streaming \
    ${API_KEY:+--api-key "$API_KEY"} \
    --concurrency "${CONCURRENCY:-8}" \
    --benchmark-duration "$seconds" \
    --benchmark-grace-period 30 \
    --image-width-mean 640 --image-width-stddev 0 \
    --image-height-mean 480 --image-height-stddev 0 \
    --image-format jpeg \
    --synthetic-input-tokens-mean 60 --synthetic-input-tokens-stddev 10 \
    --output-tokens-mean 64 --output-tokens-stddev 0 \
    --random-seed 0 \
    --artifact-dir "${ARTIFACTS:-bench/.cache/aiperf}" \
    --no-server-metrics \
    --ui simple
