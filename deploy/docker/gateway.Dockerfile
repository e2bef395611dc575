# The gateway: a slim Python, what it imports, and nothing that computes.
FROM python:3.11.13-slim-bookworm AS install
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /app
COPY requirements/ requirements/
RUN pip install --require-hashes --only-binary=:all: --requirement requirements/gateway.lock
COPY . .
RUN pip install --no-deps --no-build-isolation --editable .

FROM python:3.11.13-slim-bookworm
COPY --from=install /opt/venv /opt/venv
COPY --from=install /app /app
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER 10001:10001
EXPOSE 5000
STOPSIGNAL SIGTERM
CMD ["gunicorn", "-c", "python:gateway.server.gunicorn_config"]
