#!/usr/bin/env bash
# check.sh: build the image from nothing and prove that it works, as .ci/run does; nothing stays, however it ends.
set -euo pipefail
cd "$(dirname "$0")/../../.."
IMAGE_WORK=$(mktemp -d "${TMPDIR:-/tmp}/immich-triton-image.XXXXXX")
export IMAGE_WORK
source scripts/lab/image/storage.sh
trap 'rm -rf --one-file-system "$IMAGE_WORK"' EXIT
tag=localhost/immich-triton:proof
scripts/lab/image/base.sh
scripts/lab/image/build.sh "$tag"
.venv/bin/python scripts/lab/image/prove.py "$tag"
