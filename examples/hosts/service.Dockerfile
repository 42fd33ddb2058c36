# docker build -t words -f service.Dockerfile .
# docker run --rm --volume "$PWD/spool:/spool" --stop-timeout 30 words
FROM python:3.13-slim

RUN pip install --no-cache-dir 'workerbus[view]'
WORKDIR /app
COPY service.py .

USER nobody
EXPOSE 8765
HEALTHCHECK --interval=10s --timeout=3s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8765/healthz', timeout=2)"]
# As a list: SIGTERM reaches the program itself, and no shell in front of it.
ENTRYPOINT ["python", "service.py", "--spool", "/spool", "--host", "0.0.0.0"]
