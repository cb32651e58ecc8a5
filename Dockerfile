# Built on the machine's own platform for the one that is asked for: amd64 and arm64 alike.
FROM --platform=$BUILDPLATFORM golang:1.26.8-trixie AS build
WORKDIR /src
COPY go.mod go.sum ./
COPY client/go.mod client/
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=dev
ARG TARGETOS
ARG TARGETARCH
# Volumes of docker-compose.yml are mounted on data and secrets/…: a new volume takes its owner
# from the directory of the image that it is mounted on.
RUN --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/root/.cache/go-build \
    mkdir -p /out/data /out/secrets/all /out/secrets/postgres /out/secrets/migrate /out/secrets/seed \
        /out/secrets/service /out/secrets/simulator /out/secrets/grafana /out/secrets/cli \
    && CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/payments ./cmd/payments

FROM gcr.io/distroless/static-debian13:nonroot
LABEL org.opencontainers.image.licenses=Apache-2.0
COPY LICENSE /LICENSE
COPY --from=build /out/payments /payments
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build --chown=65532:65532 /out/secrets /secrets
# By number, so that an orchestrator can see that it is not root.
USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["/payments"]
CMD ["serve"]
