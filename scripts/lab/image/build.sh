#!/usr/bin/env bash
# build.sh TAG [TARGET]: build deploy/docker/Dockerfile, or one of its targets, without a Docker engine.
#
# pip inside reaches what pip on this machine reaches: its configuration and the folders named there are mounted for the
# build, and nothing of them stays in the image.
set -euo pipefail
cd "$(dirname "$0")/../../.."
source scripts/lab/image/storage.sh
require_tools
[ $# = 1 ] || [ $# = 2 ] || fail "usage: build.sh TAG [TARGET]"
tag=$1 target=${2:-embedded} log=$IMAGE_WORK/build-${2:-embedded}.log
echo "image: $target of deploy/docker/Dockerfile (log: $log)"
mounts=$(.venv/bin/python scripts/lab/image/pip_mounts.py "$IMAGE_WORK/pip.conf")
mapfile -t mounts <<<"$mounts"
storage_buildah build --no-cache --force-rm --format docker --isolation chroot --network host --pull=never "${mounts[@]}" \
    --file deploy/docker/Dockerfile --target "$target" --tag "$tag" . >"$log" 2>&1 || { tail -n 30 "$log" >&2 && fail "the build failed: see above"; }
grep "^prune: " "$log" || true
echo "image: built $tag"
