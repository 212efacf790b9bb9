#!/usr/bin/env bash
# run.sh TAG [BUILDAH-RUN-OPTION…] -- COMMAND…: run a command in an image of build.sh, on this machine's network.
#
# The image's user, folder and environment hold. Entry point and health check are not applied (prove.py does that), nor
# are limits: this is a chroot. For a look around:  run.sh localhost/immich-triton:proof --tty -- bash
set -euo pipefail
cd "$(dirname "$0")/../../.."
source scripts/lab/image/storage.sh
require_tools
[ $# -ge 2 ] || fail "usage: run.sh TAG [BUILDAH-RUN-OPTION…] -- COMMAND…"
tag=$1 options=()
shift
while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1") && shift; done
[ $# -gt 1 ] || fail "no command: run.sh TAG [BUILDAH-RUN-OPTION…] -- COMMAND…"
shift
container=$(storage_buildah from --pull=never "$tag")
trap 'storage_buildah rm "$container" >/dev/null' EXIT
storage_buildah run --isolation chroot --network host "${options[@]}" "$container" -- "$@"
