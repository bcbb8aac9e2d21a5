# docker build -t gluon_bn .
# docker run -p 8888:8888 gluon_bn                 JupyterLab, opened on the chapters
# docker run gluon_bn gluon-bn demo                or any other command
#
# Always x86-64: MXNet's wheel for aarch64 needs the Arm Performance Libraries, which no package
# index has. On Apple silicon and other ARM machines Docker runs this image under emulation.
# hadolint ignore=DL3029
FROM --platform=linux/amd64 python:3.11-slim-bookworm

# What MXNet's wheel expects of the system, a compiler for the native kernel, and make.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgomp1 libquadmath0 g++ git make \
 && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 student
USER 1000
WORKDIR /home/student/gluon_bn
# MALLOC_ARENA_MAX: gluon_bn/runtime.py says why.
ENV PATH=/home/student/gluon_bn/.venv/bin:$PATH MALLOC_ARENA_MAX=1

# The packages first: this layer is made again only when one of these files changes.
COPY --chown=student Makefile requirements.lock pyproject.toml README.md LICENSE ./
COPY --chown=student compat compat
COPY --chown=student tools tools
COPY --chown=student gluon_bn/__init__.py gluon_bn/__init__.py
RUN make .venv/.ready && rm -rf /home/student/.cache

COPY --chown=student . .
RUN make .venv/.ready

EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "--ServerApp.root_dir=.", \
     "--LabApp.default_url=/lab/tree/chapters"]
