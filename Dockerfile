# Serves a Triton model repository: docker run -p 8000:8000 -p 8001:8001 --shm-size=1g -v ./models:/models IMAGE
#
# A first version for CPUs; a change to come completes it (health check, compose, GPU image, slimmer layers).
# Triton is the bundled one, fetched at build time, so a container starts without a network.

ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /src
# Which torch: PyTorch's CPU builds by default, for instance .../whl/cu128 for CUDA's.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt ./
RUN python -m venv /opt/trimaran \
    && /opt/trimaran/bin/pip install "$(grep '^torch==' constraints.txt)" --index-url "${TORCH_INDEX_URL}" \
    && /opt/trimaran/bin/pip install -c constraints.txt hatchling editables
COPY . .
RUN /opt/trimaran/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && set -- /dist/trimaran-*.whl \
    && /opt/trimaran/bin/pip install -c constraints.txt "trimaran[serve] @ file://$1" \
    && /opt/trimaran/bin/pip uninstall --yes hatchling editables
# tritonserver and the Python layer inside it go where the server looks for them.
ENV TRIMARAN_CACHE=/opt/trimaran-cache
RUN /opt/trimaran/bin/python -c "\
from serving.triton_install import find_triton; \
from serving.triton_runtime import triton_environment; \
triton_environment(find_triton(), threads=1)"

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="Trimaran serving" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --create-home trimaran \
    && mkdir /models \
    && chown trimaran /models
COPY --from=build /opt/trimaran /opt/trimaran
# The server keeps its locks and logs beside what it unpacked.
COPY --from=build --chown=trimaran /opt/trimaran-cache /opt/trimaran-cache
ENV PATH=/opt/trimaran/bin:${PATH} \
    TRIMARAN_CACHE=/opt/trimaran-cache \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1
USER 10001
WORKDIR /models
VOLUME /models
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
ENTRYPOINT ["trimaran", "serve", "/models"]
CMD ["--address", "0.0.0.0"]
