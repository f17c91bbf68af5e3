# The bridge alone: its locked packages in a virtual environment, on a base that can be pinned by digest:
#   docker build --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:… .
# .dockerignore leaves out bridge/lab: the embedded Kafka, the demo and the simulated provider.
# For a login at Amazon MSK by IAM, with its signer (37 MB more): --build-arg REQUIREMENTS=requirements/msk.txt
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG REQUIREMENTS=requirements/runtime.txt
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
# One environment to build in, and one to ship, without pip in it.
RUN python -m venv /build && python -m venv --without-pip /opt/chatapp-bridge
COPY requirements/ requirements/
RUN /build/bin/pip --python /opt/chatapp-bridge/bin/python install --require-hashes --only-binary=:all: -r ${REQUIREMENTS} \
    && /build/bin/pip install --require-hashes --only-binary=:all: -r requirements/build.txt
COPY . .
# bridge/_compiled.pyx is compiled by zig, which is a package as the others are: for any processor of the kind, not for this one alone,
# and for the C library of this base. The official images have Python's headers; on a base without them it is left out, and said.
ENV CC="/build/bin/python -m ziglang cc -mcpu=baseline"
RUN if [ -e "$(python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]; then export BRIDGE_COMPILED=require; fi \
    && /build/bin/hatchling build --target wheel --directory /wheel \
    && /build/bin/pip --python /opt/chatapp-bridge/bin/python install --no-deps --no-index /wheel/*.whl \
    && install -d /data/spool

FROM ${PYTHON_IMAGE}
ARG VERSION=0+unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="chatapp-bridge" \
      org.opencontainers.image.description="Takes ChatAppStatus delivery receipts by webhook and publishes each as an event on Kafka" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/chatapp-bridge /opt/chatapp-bridge
# A new volume mounted here takes over its owner. Numeric, so that Kubernetes can see that it is not root.
COPY --from=build --chown=10001:10001 /data /var/lib/chatapp-bridge
ENV PATH=/opt/chatapp-bridge/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8080 8081
ENTRYPOINT ["/opt/chatapp-bridge/bin/chatapp-bridge"]
CMD ["serve"]
