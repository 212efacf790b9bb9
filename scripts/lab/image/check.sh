#!/usr/bin/env bash
# check.sh: build the images from nothing and prove that they work, as .ci/run does; nothing stays, however it ends.
set -euo pipefail
cd "$(dirname "$0")/../../.."
IMAGE_WORK=$(mktemp -d "${TMPDIR:-/tmp}/immich-triton-image.XXXXXX")
export IMAGE_WORK
source scripts/lab/image/storage.sh
trap 'rm -rf --one-file-system "$IMAGE_WORK"' EXIT
tag=localhost/immich-triton:proof gateway=localhost/immich-triton:gateway
scripts/lab/image/base.sh
scripts/lab/image/build.sh "$tag"
scripts/lab/image/build.sh "$gateway" gateway
.venv/bin/python scripts/lab/image/prove.py "$tag" --gateway "$gateway"
