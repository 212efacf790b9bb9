#!/usr/bin/env bash
# base.sh [VERSION]: make a stand-in for the image of Python that the Dockerfile begins with, for machines that cannot pull one.
#
# It is Debian's minimal system with this machine's Python VERSION (3.12; the exporter needs 3.11 as well) in /usr/local, as
# the official image has it. What is built on it has what the Dockerfile installs, but not the official image's exact
# files and size.
set -euo pipefail
cd "$(dirname "$0")/../../.."
source scripts/lab/image/storage.sh
require_tools
version=${1:-3.12}
base=$(base_of "$version")
[ -n "$base" ] || fail "the Dockerfile begins with no image of Python $version"

# The libraries that the official image's Python is linked with, and what pip needs to reach an index.
libraries=(ca-certificates netbase tzdata libbz2-1.0 libexpat1 libffi8 libgdbm6 liblzma5 libncursesw6 libreadline8
    libsqlite3-0 libssl3 libuuid1 zlib1g)
interpreter=.venv/bin/python
[ "$version" = 3.12 ] || interpreter=${EXPORT_PYTHON:-python$version}
python=$("$interpreter" -c 'import sys; print(sys.base_prefix)')
[ "$python" != /usr ] && [ -e "$python/lib/libpython$version.so.1.0" ] ||
    fail "the Python in $python cannot be copied: it needs a folder of its own, and a shared library, as pyenv and uv have"

# Debian's packages come from where this machine's own come from, the same way.
mirror() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Codename: bookworm' | head -n 1; }
from=$(mirror)
[ -n "$from" ] || { apt-get update -qq && from=$(mirror); }
APT_PROXY=
eval "$(apt-config shell APT_PROXY Acquire::http::Proxy)"
if [ -n "$APT_PROXY" ]; then export http_proxy=$APT_PROXY; fi

container=$(storage_buildah from scratch)
trap 'storage_buildah rm "$container" >/dev/null' EXIT
root=$(storage_buildah mount "$container")
log=$IMAGE_WORK/debootstrap.log
echo "image: Debian's minimal system (log: $log)"
# In a mount namespace of its own: what it mounts is gone with it, however it ends.
unshare --mount debootstrap --variant=minbase --include="$(IFS=,; echo "${libraries[*]}")" bookworm "$root" ${from:+"$from"} >"$log" 2>&1 ||
    fail "debootstrap failed: $(tail -n 3 "$log")"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*

# Without its tests and the packages that this machine added: pip alone, as in the official image.
tar c -C "$python" --exclude='__pycache__' --exclude="lib/python$version/test" --exclude='*.a' bin lib include | tar x -C "$root/usr/local" --no-same-owner
find "$root/usr/local/lib/python$version/site-packages" -mindepth 1 -maxdepth 1 ! -name 'pip*' -exec rm -rf {} +
grep -rIlF "$python" "$root/usr/local/bin" "$root/usr/local/lib/python$version"/_sysconfigdata*.py | xargs -r sed -i "s#$python#/usr/local#g"
ln -sf "python$version" "$root/usr/local/bin/python"
ln -sf "python$version" "$root/usr/local/bin/python3"
chroot "$root" ldconfig

storage_buildah config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin --cmd python3 "$container"
storage_buildah commit --quiet "$container" "$base" >/dev/null
echo "image: made a stand-in for $base"
