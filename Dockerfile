# pipa on a CPU:   docker build -t pipa .
# pipa on CUDA:    docker build -t pipa --build-arg BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04 \
#                    --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
# Your folder:     docker run --rm -v "$PWD:/work" pipa adapt synthetic photos
# On Linux, add:   --user "$(id -u):$(id -g)", so that what it writes is yours and not root's
# With a GPU, add: --gpus all --shm-size=8g (loading processes hand images on in shared memory)
ARG BASE=python:3.12-slim
FROM ${BASE}

# Bases of CUDA bring no Python.
RUN command -v python3 >/dev/null && python3 -c "import venv, ensurepip" 2>/dev/null || \
    (apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*)
RUN python3 -m venv /opt/pipa
ENV PATH=/opt/pipa/bin:$PATH

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# torch first, in a layer of its own: it is most of the image and changes least.
RUN pip install --no-cache-dir --index-url "${TORCH_INDEX}" "$(grep '^torch==' constraints.txt | sed 's/+.*//')"
COPY src src
RUN pip install --no-cache-dir -c constraints.txt ".[export]" && rm -rf /src

# What is fetched and cached outlives the container if this folder is a volume. Any user may write to it.
# A user whom the image does not know has neither home nor name, and torch asks for both.
ENV HF_HOME=/cache/huggingface PIPA_CACHE=/cache/pipa HOME=/cache USER=pipa
RUN install -d -m 777 /cache
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["pipa"]
CMD ["--help"]
