#!/bin/sh
# Make models/polder-tiny.gguf again, from a clean Debian 12: installs the packages it learns from and learns with, trains
# (about an hour on one core), writes the model and SOURCES.json. Arguments are passed on to train_own.py.
set -eu
cd "$(dirname "$0")"
TEXT="wordnet-base"
TOOLS="python3 python3-torch python3-numpy libopenblas0-pthread"
missing=""
for p in $TEXT $TOOLS; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ]; then sudo=""; elif command -v sudo >/dev/null; then sudo=sudo; else
        echo "train.sh: install these packages as root first: apt-get install$missing" >&2
        exit 3
    fi
    $sudo apt-get update
    # shellcheck disable=SC2086
    $sudo apt-get install -y --no-install-recommends $missing
fi
# One thread and one BLAS kernel, so that a second run adds up the same numbers in the same order; glibc keeps the
# memory of a step for the next one instead of giving it back.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OPENBLAS_CORETYPE=Haswell
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 MALLOC_TOP_PAD_=268435456
exec nice -n 19 /usr/bin/python3 train_own.py "$@"
