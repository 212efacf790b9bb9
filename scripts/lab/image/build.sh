#!/usr/bin/env bash
# build.sh TAG: build deploy/docker/Dockerfile without a Docker engine.
#
# pip inside reaches what pip on this machine reaches: its configuration and the folders named there are mounted for the
# build, and nothing of them stays in the image.
set -euo pipefail
cd "$(dirname "$0")/../../.."
source scripts/lab/image/storage.sh
require_tools
[ $# = 1 ] || fail "usage: build.sh TAG"
tag=$1 log=$IMAGE_WORK/build.log
echo "image: deploy/docker/Dockerfile (log: $log)"
mounts=$(.venv/bin/python scripts/lab/image/pip_mounts.py "$IMAGE_WORK/pip.conf")
mapfile -t mounts <<<"$mounts"
storage_buildah build --no-cache --force-rm --format docker --isolation chroot --network host --pull=never "${mounts[@]}" \
    --file deploy/docker/Dockerfile --tag "$tag" . >"$log" 2>&1 || { tail -n 30 "$log" >&2 && fail "the build failed: see above"; }
echo "image: built $tag"
