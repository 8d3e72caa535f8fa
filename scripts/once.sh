#!/usr/bin/env bash
# once.sh POLDER ISLAND NAME ONCE: serves the island; with ONCE=1 asks one question over HTTP, prints the answer,
# verifies the ledger and stops.
set -eu
polder=$1 island=$2 name=$3 once=$4
if [ "$once" != 1 ]; then
    exec "$polder" --island "$island" up --load "$name"
fi
log=$(mktemp)
key=$("$polder" --island "$island" --json key add "once-$$-$RANDOM" | sed 's/.*"key":"\([^"]*\)".*/\1/')
"$polder" --island "$island" up --listen 127.0.0.1:0 --load "$name" 2>"$log" &
pid=$!
trap 'kill $pid 2>/dev/null || true; rm -f "$log"' EXIT
url=
for _ in $(seq 200); do
    url=$(sed -n 's/.*listening on \(http:[^ ]*\).*/\1/p' "$log")
    [ -n "$url" ] && break
    kill -0 $pid 2>/dev/null || { cat "$log" >&2; exit 3; }
    sleep 0.05
done
[ -n "$url" ] || { cat "$log" >&2; echo "the server did not start" >&2; exit 3; }

# A model with a chat template gets a question, one without a text to go on from.
ask() { # PATH BODY FILTER
    curl -sS --noproxy '*' --max-time 300 -H "Authorization: Bearer $key" -H 'Content-Type: application/json' \
        -o "$log.answer" -w '%{http_code}' -d "$2" "$url$1"
}
question='What is a computer?'
body='{"model":"'$name'","messages":[{"role":"user","content":"'$question'"}],"max_tokens":120,"temperature":0.5,"seed":7}'
status=$(ask /v1/chat/completions "$body")
if [ "$status" = 400 ] && grep -q template "$log.answer"; then
    question='Once upon a time'
    body='{"model":"'$name'","prompt":"'$question'","max_tokens":200,"temperature":0,"echo":true}'
    status=$(ask /v1/completions "$body")
fi
[ "$status" = 200 ] || { cat "$log.answer" >&2; rm -f "$log.answer"; exit 3; }
echo "> $question"
# python3 comes with meson
python3 -c '
import json, sys
c = json.load(open(sys.argv[1]))["choices"][0]
text = c["message"]["content"] if "message" in c else c["text"]
sys.stdout.write(text.strip() + "\n")
sys.exit(0 if text.strip() else 1)' "$log.answer"
rm -f "$log.answer"
kill -TERM $pid
wait $pid || { cat "$log" >&2; exit 3; }
"$polder" --island "$island" audit verify
