# The daemon in a container: not root, and it writes to /var/lib/drift-monitor and /tmp only.
#
#     docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag drift-monitor .
#
# The tag names a patch version. To pin the bytes, add the digest that your registry shows: FROM python:...@sha256:...
FROM python:3.11.11-slim-bookworm AS build

WORKDIR /src
COPY deploy/requirements.lock ./
RUN python -m venv /opt/drift-monitor \
 && /opt/drift-monitor/bin/pip install --no-cache-dir --require-hashes --no-deps --requirement requirements.lock
COPY pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY alerts ./alerts
COPY grafana ./grafana
COPY examples ./examples
COPY drift_monitor ./drift_monitor
RUN /opt/drift-monitor/bin/pip install --no-cache-dir --no-deps . \
 && /opt/drift-monitor/bin/pip check

FROM python:3.11.11-slim-bookworm

ARG REVISION=""
ENV DRIFT_MONITOR_REVISION=$REVISION \
    PATH=/opt/drift-monitor/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN useradd --system --uid 10001 --user-group --create-home --home-dir /var/lib/drift-monitor --shell /usr/sbin/nologin drift-monitor
COPY --from=build /opt/drift-monitor /opt/drift-monitor

USER 10001:10001
WORKDIR /etc/drift-monitor
VOLUME ["/var/lib/drift-monitor"]
EXPOSE 9877
# Health is open to everybody, whatever token guards the rest.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9877/-/healthy', timeout=4)"]
ENTRYPOINT ["drift-monitor"]
CMD ["run", "--config", "/etc/drift-monitor/drift-monitor.yaml"]
