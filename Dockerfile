# docker build --target api -t asgard .
#   The API. `docker run --init -p 8000:8000 -v asgard:/data -e ASGARD_API_TOKEN=… asgard`; without a token it refuses to
#   listen beyond its own loopback. All that must last is in /data.
# docker build --target model-base --build-arg PYTHON=3.11 -t <registry>/model-base:3.11 .
#   A base for models' images with what some wheels expect of the system; ASGARD_BASE_IMAGE=<registry>/model-base:{python}.

ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS model-base

# GCC's OpenMP: LightGBM's wheels, among others, bring none of their own.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 65532 asgard \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin asgard
USER 65532:65532


FROM python:${PYTHON}-slim-bookworm AS api

RUN groupadd --gid 65532 asgard \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /data --shell /usr/sbin/nologin asgard \
    && install --directory --owner=65532 --group=65532 /data
WORKDIR /opt/asgard
ENV PATH=/opt/asgard/.venv/bin:/opt/asgard/cli/pulumi/3.255.0/bin:$PATH \
    PYTHONUNBUFFERED=1

# The packages change less often than Asgard does.
COPY pyproject.toml uv.lock README.md ./
RUN python -m pip install --no-cache-dir --root-user-action=ignore \
        "uv==$(sed -n '/^name = "uv"$/{n;s/^version = "\(.*\)"$/\1/p;}' uv.lock)" \
    && python -m uv sync --locked --no-dev --no-install-project --no-cache --compile-bytecode
COPY src src
RUN python -m uv sync --locked --no-dev --no-editable --no-cache --compile-bytecode \
    && ASGARD_CACHE_DIR=/opt/asgard/cli python -m asgard.platform.engine_install

# In one volume: files of environments are hard links into uv's cache.
ENV HOME=/data \
    ASGARD_DATA_DIR=/data/asgard \
    ASGARD_CACHE_DIR=/data/cache \
    UV_CACHE_DIR=/data/cache/uv \
    UV_PYTHON_INSTALL_DIR=/data/cache/pythons
VOLUME /data
WORKDIR /data
USER 65532:65532
EXPOSE 8000
CMD ["asgard", "serve", "--host", "0.0.0.0"]
