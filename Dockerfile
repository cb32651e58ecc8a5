FROM golang:1.26.8-bookworm AS build
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

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/payments /payments
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build --chown=65532:65532 /out/secrets /secrets
# By number, so that an orchestrator can see that it is not root.
USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["/payments"]
CMD ["serve"]
