# syntax=docker/dockerfile:1
FROM python:3.13-slim-trixie AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
RUN python3 -m venv /opt/ppool
COPY pyproject.toml setup.py README.md LICENSE ./
COPY ppool ppool
COPY models models
COPY training training
COPY export export
COPY service service
# Not editable: what runs is what a wheel holds.
RUN /opt/ppool/bin/pip install --no-cache-dir '.[serve]'

FROM python:3.13-slim-trixie AS cpu
LABEL org.opencontainers.image.title="ppool" \
      org.opencontainers.image.description="Segmentation server for fine details" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/ppool /opt/ppool
ENV PATH=/opt/ppool/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PPOOL_HOST=0.0.0.0 \
    PPOOL_PORT=8000
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PPOOL_PORT\"]}/livez', timeout=2)"]
ENTRYPOINT ["ppool-serve"]
