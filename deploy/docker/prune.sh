#!/bin/sh
# prune.sh VENV: remove from an environment what no image ever runs, and print what each step gave back.
#
# Only whole files that nothing imports: the packages' own tests, plugins for devices and formats that a CPU with ONNX
# models does not have, and stubs of other Pythons. The image is proven after this (scripts/lab/image/prove.py).
set -eu
packages=$1/lib/python3.12/site-packages

size() { du -sm "$1" | cut -f 1; }

# step NAME COMMAND…: run it and say by how many MB the environment shrank.
step() {
    name=$1 before=$(size "$packages")
    shift
    "$@"
    echo "prune: $name: $((before - $(size "$packages"))) MB"
}

tests() {
    find "$packages" -depth -type d -name tests -exec rm -rf {} +
    rm -rf "$packages/onnx/backend/test"
}

openvino() {
    libraries=$packages/openvino/libs
    [ -d "$libraries" ] || return 0
    rm -f "$libraries"/libopenvino_intel_gpu_plugin.so "$libraries"/libopenvino_intel_npu_plugin.so "$libraries"/cache.json
    for format in tensorflow tensorflow_lite pytorch paddle gguf jax; do
        rm -f "$libraries/libopenvino_${format}_frontend".so*
    done
}

stubs() {
    rm -rf "$packages"/pytriton/tritonserver/python_backend_stubs/3.8 \
        "$packages"/pytriton/tritonserver/python_backend_stubs/3.9 \
        "$packages"/pytriton/tritonserver/python_backend_stubs/3.1[013]
}

echo "prune: $(size "$packages") MB"
step "tests of packages" tests
step "OpenVINO for other devices and formats" openvino
step "Triton's stubs for other Pythons" stubs
echo "prune: $(size "$packages") MB are left"
