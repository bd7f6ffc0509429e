# Trimaran's images. Targets:
#   loadtest         Locust suite; no torch
#   serve-cpu        Triton with the CPU engines; serves the model repository mounted at /models
#   serve-cpu-baked  the same with a repository baked in: --build-arg MODELS=models (a folder of the build context)
#   train            fine-tuning and merging
#   serve-gpu        the same server on NVIDIA's Triton image
#
#   docker build --target serve-cpu -t trimaran/serve-cpu:0.1.0 .
#   docker run --shm-size=1g -p 127.0.0.1:8000:8000 -v ./models:/models:ro trimaran/serve-cpu:0.1.0
#
# Labels say where an image comes from, if the build does: --build-arg REVISION="$(git rev-parse HEAD)"
# --build-arg CREATED="$(git show --no-patch --format=%cI)" --build-arg SOURCE=URL. compose.yaml, the gate and
# `trimaran deploy compose --up` give them. They come last, so that they cost no layer.
#
# Everything is fetched at build time: a container starts without a network, on a read-only root, as user 10001.

# checkov:skip=CKV_DOCKER_7:the tag is part of these arguments, which checkov does not read
ARG BASE_IMAGE=python:3.11-slim-bookworm
ARG GPU_BASE_IMAGE=nvcr.io/nvidia/tritonserver:25.10-py3

# ---- what every image starts from: an init that forwards signals, OpenMP for torch, and a user

FROM ${BASE_IMAGE} AS base
# tini and libgomp1 in the distribution's versions, as the base image's own packages are.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --home-dir /tmp trimaran

# ---- where the environments are built. pip compiles nothing: slim.sh throws all byte code away, and makes what is used

FROM ${BASE_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt /
RUN python3 -m venv /opt/trimaran

# ---- the project's wheel, and one list of requirements per image

FROM ${BASE_IMAGE} AS source
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY constraints.txt pyproject.toml deploy/docker/requirements.py ./
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-compile -c constraints.txt hatchling editables \
    && mkdir /requirements \
    && python3 requirements.py loadtest > /requirements/loadtest.txt \
    && python3 requirements.py serve -docker > /requirements/serve.txt \
    && python3 requirements.py serve -docker -numba > /requirements/serve-gpu.txt \
    && python3 requirements.py openvino onnx -nncf -onnxscript > /requirements/engines.txt \
    && python3 requirements.py train > /requirements/train.txt
COPY . .
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist .

# ---- loadtest

FROM build AS build-loadtest
COPY --from=source /requirements/loadtest.txt /
RUN /opt/trimaran/bin/pip install --no-compile -c constraints.txt -r loadtest.txt
COPY --from=source /dist /dist
COPY deploy/docker/slim.sh /
RUN /opt/trimaran/bin/pip install --no-compile --no-deps /dist/*.whl && sh /slim.sh /opt/trimaran trimaran.commands loadtests.run loadtests.load prometheus_client.parser

FROM base AS loadtest
LABEL org.opencontainers.image.title="Trimaran load test" \
      org.opencontainers.image.description="Locust suite for LLM endpoints: TTFT, ITL, SLO verdict" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
RUN mkdir /results && chown 10001 /results
COPY --from=build-loadtest /opt/trimaran /opt/trimaran
ENV PATH=/opt/trimaran/bin:${PATH} HOME=/tmp MPLCONFIGDIR=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /results
# A test, not a service: whether it is healthy is its exit code.
HEALTHCHECK NONE
ENTRYPOINT ["tini", "--", "trimaran", "loadtest"]
ARG BASE_IMAGE
ARG SOURCE=""
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

# ---- serve-cpu

FROM build AS build-serve-cpu
# Which torch: PyTorch's CPU builds by default; empty is the package index's own.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN /opt/trimaran/bin/pip install --no-compile "$(grep '^torch==' constraints.txt)" \
        ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"}
COPY --from=source /requirements/serve.txt /requirements/engines.txt /
# bitsandbytes carries its kernels for every GPU, 120 MB that a CPU cannot run.
RUN /opt/trimaran/bin/pip install --no-compile -c constraints.txt -r serve.txt -r engines.txt \
    && find /opt/trimaran -name 'libbitsandbytes_*.so' -not -name '*_cpu.so' -delete
COPY --from=source /dist /dist
COPY deploy/docker/slim.sh /
# The server and the Python layer inside it go where `trimaran serve` looks for them.
ENV TRIMARAN_CACHE=/opt/trimaran-cache
RUN /opt/trimaran/bin/pip install --no-compile --no-deps /dist/*.whl \
    && /opt/trimaran/bin/python -c "\
from serving.triton_install import find_triton; \
from serving.triton_runtime import triton_environment; \
triton_environment(find_triton(), threads=1)" \
    && sh /slim.sh /opt/trimaran trimaran.commands serving.serve serving.health \
        serving.engine.torch.loading serving.engine.torch.compiled.row_kernel \
        serving.engine.torch.compiled.prompt_kernel \
        serving.engine.torch.compiled.rotary_kernel serving.engine.torch.compiled.program_kernel \
        serving.engine.torch.compiled.linear.float_kernel serving.engine.torch.compiled.linear.nf4_kernel \
        serving.engine.torch.compiled.linear.int8_kernel \
        serving.engine.openvino.loading serving.engine.onnx.loading \
        transformers.models.llama.modeling_llama

FROM base AS serve-cpu
LABEL org.opencontainers.image.title="Trimaran serving (CPU)" \
      org.opencontainers.image.description="Triton Inference Server with Trimaran's LLM engines for CPUs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
RUN mkdir /models
COPY --from=build-serve-cpu /opt/trimaran /opt/trimaran
COPY --from=build-serve-cpu /opt/trimaran-cache /opt/trimaran-cache
ENV PATH=/opt/trimaran/bin:${PATH} \
    TRIMARAN_CACHE=/opt/trimaran-cache \
    TRIMARAN_MODEL=llm \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1
USER 10001
WORKDIR /models
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
# Readiness of the model, not of the server; a model may take minutes to load.
HEALTHCHECK --interval=10s --timeout=10s --start-period=600s --retries=3 \
    CMD ["trimaran-health"]
ENTRYPOINT ["tini", "--", "trimaran", "serve", "/models"]
CMD ["--address", "0.0.0.0", "--log-file", "/tmp/triton.log", "--echo-log"]
ARG BASE_IMAGE
ARG SOURCE=""
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

FROM serve-cpu AS serve-cpu-baked
# A model repository inside the build context. There is no default: weights come into an image on purpose only.
ARG MODELS
COPY ${MODELS} /models

# ---- train

FROM build AS build-train
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN /opt/trimaran/bin/pip install --no-compile "$(grep '^torch==' constraints.txt)" \
        ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"}
COPY --from=source /requirements/train.txt /
RUN /opt/trimaran/bin/pip install --no-compile -c constraints.txt -r train.txt
COPY --from=source /dist /dist
COPY deploy/docker/slim.sh /
RUN /opt/trimaran/bin/pip install --no-compile --no-deps /dist/*.whl && sh /slim.sh /opt/trimaran trimaran.commands training.run training.merge

FROM base AS train
LABEL org.opencontainers.image.title="Trimaran training" \
      org.opencontainers.image.description="Fine-tuning, merging and quantizing of open LLMs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
RUN mkdir /data /output && chown 10001 /output
COPY --from=build-train /opt/trimaran /opt/trimaran
ENV PATH=/opt/trimaran/bin:${PATH} HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /output
# A job, not a service.
HEALTHCHECK NONE
ENTRYPOINT ["tini", "--", "trimaran"]
CMD ["train", "--help"]
ARG BASE_IMAGE
ARG SOURCE=""
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

# ---- serve-gpu: the tritonserver of the base image is on PATH, so the bundled one is not fetched

FROM ${GPU_BASE_IMAGE} AS build-serve-gpu
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cu128
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /
# python3-venv belongs to the python3 of the base image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY constraints.txt /
RUN python3 -m venv /opt/trimaran \
    && /opt/trimaran/bin/pip install --no-compile "$(grep '^torch==' constraints.txt)" \
        ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"}
COPY --from=source /requirements/serve-gpu.txt /
RUN /opt/trimaran/bin/pip install --no-compile -c constraints.txt -r serve-gpu.txt
COPY --from=source /dist /dist
COPY deploy/docker/slim.sh /
RUN /opt/trimaran/bin/pip install --no-compile --no-deps /dist/*.whl && sh /slim.sh /opt/trimaran trimaran.commands serving.serve serving.health serving.engine.torch.loading

FROM ${GPU_BASE_IMAGE} AS serve-gpu
LABEL org.opencontainers.image.title="Trimaran serving (GPU)" \
      org.opencontainers.image.description="Triton Inference Server with Trimaran's LLM engine for NVIDIA GPUs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
# tini in the version of the base image's distribution.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --home-dir /tmp trimaran \
    && mkdir -p /models
COPY --from=build-serve-gpu /opt/trimaran /opt/trimaran
ENV PATH=/opt/trimaran/bin:${PATH} \
    TRIMARAN_MODEL=llm \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1
USER 10001
WORKDIR /models
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=10s --start-period=900s --retries=3 \
    CMD ["trimaran-health"]
ENTRYPOINT ["tini", "--", "trimaran", "serve", "/models"]
CMD ["--address", "0.0.0.0", "--log-file", "/tmp/triton.log", "--echo-log"]
ARG GPU_BASE_IMAGE
ARG SOURCE=""
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.base.name="${GPU_BASE_IMAGE}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
