FROM python:3.13-slim
WORKDIR /opt/kama
COPY pyproject.toml README.md LICENSE ./
COPY kama kama
RUN pip install --no-cache-dir '.[fast,postgres]' && useradd --create-home kama
USER kama
EXPOSE 8000
ENTRYPOINT ["kama"]
CMD ["serve", "--host", "0.0.0.0"]
