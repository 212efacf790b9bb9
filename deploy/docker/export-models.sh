#!/bin/sh
# export-models.sh ocr | clip MODEL | faces PACK …: `immich-triton export …` into the volume /models; the exporter's entry point.
#
# Downloads go to /cache, where `export clip` also looks for PyTorch: it lies in the image, which may be read-only.
set -eu
mkdir -p /cache/immich-triton
for made in /opt/exporter/immich-triton/export-*/; do
    ln -sfn "${made%/}" /cache/immich-triton/
done
exec immich-triton export "$@" --models /models
