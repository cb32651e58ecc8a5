# By digest: a tag can lead to other content tomorrow. The digests are those of the indexes of all platforms.
FROM golang:1.26.8-bookworm@sha256:a688600ca24f8a4d3ca77f95b0dd40704a9fc787c826660eb7ba0b641b8b175d AS build
WORKDIR /src
COPY go.mod go.sum ./
COPY client/go.mod client/
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=dev
# Volumes of docker-compose.yml are mounted on data and secrets/…: a new volume takes its owner
# from the directory of the image that it is mounted on.
RUN --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/root/.cache/go-build \
    mkdir -p /out/data /out/secrets/all /out/secrets/postgres /out/secrets/migrate /out/secrets/seed \
        /out/secrets/service /out/secrets/simulator /out/secrets/grafana \
    && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/payments ./cmd/payments

FROM gcr.io/distroless/static-debian12:nonroot@sha256:afa5c872c891853ca7fcf1f12c3edb23f7eeef36189728842dd51042ff57f7ab
COPY --from=build /out/payments /payments
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build --chown=65532:65532 /out/secrets /secrets
# By number, so that an orchestrator can see that it is not root.
USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["/payments"]
CMD ["serve"]
