# syntax=docker/dockerfile:1
# ditr with all that it needs, for a project in the folder that is mounted at /work:
#
#     docker build --target cpu -t ditr .         or, for machines with an NVIDIA GPU: --target cuda
#     docker run --rm -it -v "$PWD:/work" --user "$(id -u):$(id -g)" ditr doctor
#     docker run --rm -it -v "$PWD:/work" --user "$(id -u):$(id -g)" --gpus all ditr run fpn_inject
#     docker run --rm -it -v "$PWD:/work" --user "$(id -u):$(id -g)" -p 8080:8080 ditr view RUN FRAME --host 0.0.0.0
#
# The driver is the host's (580 or newer for the CUDA 13 of this torch), through NVIDIA's container toolkit.

FROM python:3.12-slim-bookworm AS base
# g++ builds MinkowskiEngine here, and is what Triton compiles its launchers with when a GPU is used.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*
# What whoever runs the container may write, beside the project: Triton's kernels, matplotlib's fonts.
RUN mkdir -m 1777 /home/ditr
WORKDIR /opt/ditr
COPY . .
# All that is to stay lies in the project's folder, also where nobody made it one with `ditr init`.
ENV PATH=/opt/ditr/.venv/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    DITR_WHEELS=/opt/wheels \
    DITR_CACHE=/work/cache \
    XDG_DATA_HOME=/work \
    USER=ditr

FROM base AS cpu
RUN python3 tools/setup.py && rm -rf build "$DITR_WHEELS"
ENV HOME=/home/ditr
WORKDIR /work
USER 1000:1000
ENTRYPOINT ["ditr"]

FROM base AS cuda
# No GPU is there while an image is built, so the build of torch with CUDA is asked for by name.
RUN TORCH=torch==2.13.0 python3 tools/setup.py && rm -rf build "$DITR_WHEELS"
ENV HOME=/home/ditr
WORKDIR /work
USER 1000:1000
ENTRYPOINT ["ditr"]
