# syntax=docker/dockerfile:1
# Two targets: `cpu` and `gpu`. Both are the Python base image, one virtual environment from a
# hashed lock file, and this package; compilers and pip's caches stay in the stages before.

FROM python:3.13-slim-trixie AS tools
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    rm -f /etc/apt/apt.conf.d/docker-clean \
    && apt-get update \
    && apt-get install --yes --no-install-recommends g++
COPY locks/build.txt /locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/tools \
    && /opt/tools/bin/python -m pip install --require-hashes --requirement /locks/build.txt

FROM tools AS wheel
WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE ./
COPY ppool ppool
COPY models models
COPY training training
COPY export export
COPY service service
# Without isolation: setuptools is the locked one, so the same source gives the same wheel.
RUN /opt/tools/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    # The build goes on without a compiler; an image without the kernels must not.
    && /opt/tools/bin/python -m zipfile --list /wheels/*.whl | grep --quiet 'ppool/_native.*\.so'

FROM tools AS cpu-packages
COPY locks/cpu.txt /locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv --without-pip /opt/ppool \
    && /opt/tools/bin/python -m pip --python /opt/ppool/bin/python \
        install --require-hashes --requirement /locks/cpu.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    /opt/tools/bin/python -m pip --python /opt/ppool/bin/python install --no-deps /wheels/*.whl \
    && /opt/tools/bin/cyclonedx-py environment --output-reproducible \
        --output-file /opt/ppool/sbom.cdx.json /opt/ppool/bin/python

FROM tools AS gpu-packages
COPY locks/gpu.txt /locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv --without-pip /opt/ppool \
    && /opt/tools/bin/python -m pip --python /opt/ppool/bin/python \
        install --require-hashes --requirement /locks/gpu.txt
ENV LD_LIBRARY_PATH=/opt/ppool/cuda/cu13/lib:/opt/ppool/cuda/cudnn/lib
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    /opt/tools/bin/python -m pip --python /opt/ppool/bin/python install --no-deps /wheels/*.whl \
    && /opt/tools/bin/cyclonedx-py environment --output-reproducible \
        --output-file /opt/ppool/sbom.cdx.json /opt/ppool/bin/python \
    && site=$(/opt/ppool/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
    && ln -s "$site/nvidia" /opt/ppool/cuda \
    # Every library the CUDA provider needs is in the image; libcuda.so.1 comes with the driver.
    && ! ldd "$site/onnxruntime/capi/libonnxruntime_providers_cuda.so" \
        | grep 'not found' | grep --invert-match libcuda.so.1

FROM python:3.13-slim-trixie AS base
ARG VERSION=unreleased
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ppool" \
      org.opencontainers.image.description="Segmentation server for fine details" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/ppool/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PPOOL_HOST=0.0.0.0 \
    PPOOL_PORT=8000 \
    PPOOL_MODEL_CACHE=/tmp/models
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PPOOL_PORT\"]}/livez', timeout=2)"]
# Signals that come while Python starts wait for ppool to take them; process 1 would lose them.
ENTRYPOINT ["env", "--block-signal=TERM,INT,HUP", "ppool", "serve"]

FROM base AS gpu
COPY --from=gpu-packages /opt/ppool /opt/ppool
# The first two tell NVIDIA's container runtime which parts of the driver to mount.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LD_LIBRARY_PATH=/opt/ppool/cuda/cu13/lib:/opt/ppool/cuda/cudnn/lib

# Last, so that a build without --target makes it.
FROM base AS cpu
COPY --from=cpu-packages /opt/ppool /opt/ppool
