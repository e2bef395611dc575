# Triton without a GPU: the server of the nvidia-pytriton wheel. Exports builds as well and, as `verify`, compares them.
FROM python:3.11.13-slim-bookworm AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
COPY requirements/ requirements/
RUN pip install --require-hashes --only-binary=:all: --requirement requirements/serve.lock
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

# With what a build is compared with; nothing is served from here.
FROM packages AS verify
RUN grep -E '^(torch|transformers)==' requirements/test.txt > /tmp/verify.txt \
    && pip install --requirement /tmp/verify.txt --constraint requirements/constraints.txt \
    && rm /tmp/verify.txt
COPY . .
RUN pip install --no-deps --no-build-isolation --editable .
ENV HOME=/tmp HF_HUB_OFFLINE=1
USER 10001:10001
ENTRYPOINT ["python3", "-m", "export"]

FROM packages AS triton-cpu
COPY . .
RUN pip install --no-deps --no-build-isolation --editable . \
    && deploy/docker/link-wheel-server /opt/tritonserver
ENV PATH=/opt/tritonserver/bin:/app/deploy/docker:$PATH \
    LD_LIBRARY_PATH=/usr/local/lib \
    TRITON_BACKENDS=/opt/tritonserver/backends \
    OMP_NUM_THREADS=1
USER 10001:10001
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
ENTRYPOINT ["serve-triton"]
CMD ["/builds/current"]
