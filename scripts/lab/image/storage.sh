# Sourced by the scripts beside it: where images are kept, and buildah over that place.
#
# The storage is one of our own, so that the machine's images stay as they are and everything can be removed at once.
# The driver vfs needs no kernel support, hence runs inside containers too; it keeps whole copies, 2 GB for each image.
IMAGE_WORK=${IMAGE_WORK:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/immich-triton/image}
TOOLS=(buildah debootstrap tini-static)

# base_of VERSION: print the image of Python that the Dockerfile begins with.
base_of() {
    sed -n "s/^FROM \(python:${1//./\\.}\.[^ ]*\).*/docker.io\/library\/\1/p" deploy/docker/Dockerfile | head -n 1
}

# A signal waits for the command that runs, which Ctrl-C reaches too: only then is it time to clean up.
trap 'exit 130' INT TERM

storage_buildah() {
    buildah --root "$IMAGE_WORK/storage" --runroot "$IMAGE_WORK/state" --storage-driver "${STORAGE_DRIVER:-vfs}" "$@"
}

fail() {
    echo "image: $*" >&2
    exit 1
}

# Install what builds images, as root on Debian and Ubuntu; elsewhere say what is missing.
require_tools() {
    local tool missing=()
    for tool in "${TOOLS[@]}"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
    [ "${#missing[@]}" = 0 ] && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "missing: ${missing[*]}. As root on Debian or Ubuntu they are installed by themselves; elsewhere install them, or use Docker"
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]%-static}" >/dev/null
}
