# One image for every process; the platform says which command it runs.
FROM python:3.13-slim
WORKDIR /srv/bridge
COPY requirements.lock .
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
COPY bridge_service bridge_service
COPY schedulers schedulers
RUN useradd --system --no-create-home bridge
USER bridge
ENV PYTHONUNBUFFERED=1
# The exec form: a shell in between would keep SIGTERM to itself.
CMD ["dramatiq", "bridge_service", "--processes", "2", "--threads", "8"]
