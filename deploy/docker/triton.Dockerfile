# Triton for NVIDIA GPUs: NVIDIA's server, our engine, and ONNX Runtime for CUDA. Written, and not yet built anywhere.
FROM nvcr.io/nvidia/tritonserver:26.07-py3
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_BREAK_SYSTEM_PACKAGES=1
WORKDIR /app
COPY requirements/ requirements/
# All that serving needs but the server that the image has already, with the CUDA build of ONNX Runtime, for Python 3.12.
RUN pip install --require-hashes --only-binary=:all: --requirement requirements/gpu.lock
COPY . .
RUN pip install --no-deps --no-build-isolation --editable .
ENV PATH=/app/deploy/docker:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
USER 10001:10001
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
ENTRYPOINT ["serve-triton"]
CMD ["/builds/current"]
