# Triton of NVIDIA's image over this project's repository, for the profile ngc of docker-compose.yml: what the pipelines
# import is added, from the project's own lock. NOT BUILT BY US: the image could not be had where this was written.
FROM nvcr.io/nvidia/tritonserver:25.06-py3
WORKDIR /app
COPY requirements.lock ./
# Without the Triton of the wheel, the image has its own. For the system's Python 3.12, as Triton's Python backend takes no
# other packages: it obeys neither PYTHONPATH nor a virtual environment.
RUN awk '/^[a-z]/ { keep = $0 !~ /^nvidia-pytriton/ } keep' requirements.lock > pipelines.lock \
    && pip install --no-cache-dir --no-deps --require-hashes --break-system-packages -r pipelines.lock
# This folder is on the path of the pipelines' processes.
COPY triton_backends/immich_pipelines /opt/tritonserver/backends/python/immich_pipelines
USER 1000
EXPOSE 8000 8002
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s \
    CMD ["curl", "--fail", "--silent", "http://127.0.0.1:8000/v2/health/live"]
# A model that cannot be loaded must not end the others, and unloading is refused outside explicit mode.
ENTRYPOINT ["tritonserver", "--model-repository=/models", "--model-control-mode=explicit", "--load-model=*", \
    "--exit-on-error=false", "--allow-grpc=false"]
CMD ["--backend-config=python,shm-region-prefix-name=immich_triton"]
