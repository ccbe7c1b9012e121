# harl-bench in a container. Build it in a clone; docs/first-five-minutes.md has the commands.
FROM python:3.11.14-slim-bookworm

# compile=true needs a compiler. Debian keeps one version of it, so none is named here.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends -y g++ \
    && rm -rf /var/lib/apt/lists/*

# Of torch the build for CUDA, or for the CPU where PIP_EXTRA_INDEX_URL names its index.
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY constraints.txt .
RUN pip install -c constraints.txt torch torchvision
COPY . .
RUN pip install -c constraints.txt '.[cityscapes]'

# No rights of root are needed, and docker run --user may name another user: caches go to /tmp.
ENV HOME=/tmp USER=harl DETECTRON2_DATASETS=/data
RUN install -d /data && install -d -m 1777 /work
USER 1000
WORKDIR /work
ENTRYPOINT ["harl-bench"]
CMD ["doctor"]
