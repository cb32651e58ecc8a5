#!/usr/bin/env bash
# Starts the stack of docker-compose.yml in the background and says what to do next. What would fail
# half way is looked for before anything starts. Exits 2 when this machine is not ready for it.
set -euo pipefail
cd "$(dirname "$0")/.."

engine_min=25.0 compose_min=2.24.0 # healthcheck.start_interval; `docker compose run` of a service with a profile

refuse() {
  printf '%s\n' "$@" >&2
  exit 2
}

# at_least HAVE WANT: whether a version is WANT or newer.
at_least() { [[ $(printf '%s\n%s\n' "$2" "${1#v}" | sort -V | sed -n 1p) == "$2" ]]; }

command -v docker >/dev/null || refuse "Docker is not installed. It needs Docker Engine $engine_min and Compose $compose_min or newer." \
  "Without Docker: make demo"
engine=$(docker version --format '{{.Server.Version}}' 2>/dev/null) || refuse "The Docker engine does not answer. Is it running, and may this user ask it? Try: docker version"
at_least "$engine" "$engine_min" || refuse "The Docker engine is $engine, and the stack needs $engine_min or newer."
compose=$(docker compose version --short 2>/dev/null) || refuse "Docker Compose is not installed: \`docker compose version\` fails. The stack needs $compose_min or newer."
at_least "$compose" "$compose_min" || refuse "Docker Compose is $compose, and the stack needs $compose_min or newer."

if [[ -e .env && ! -r .env ]]; then
  refuse "The file .env cannot be read. It has the secrets of the stack: give it to this user, or run as its owner."
fi
# By the modes alone: this user may read what a container's may not.
closed=$(find deploy docs/runbooks \( ! -perm -o=r -o -type d ! -perm -o=x \) -print -prune | sed -n 1,3p)
if [[ -n $closed ]]; then
  refuse "Containers cannot read files of this clone, which was made with a strict umask:" "$closed" "Run: chmod -R a+rX deploy docs/runbooks"
fi

# Ports of containers that this stack runs already are its own.
config=$(docker compose config) || exit 2
ours=" $({ docker compose ps --format '{{.Ports}}' 2>/dev/null | grep -o '127\.0\.0\.1:[0-9]*' || true; } | cut -d : -f 2 | tr '\n' ' ')"
for port in $(sed -n 's/^ *published: "\([0-9]*\)"$/\1/p' <<<"$config"); do
  if [[ $ours != *" $port "* ]] && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    refuse "Port $port of 127.0.0.1 is taken by another program, so nothing was started." \
      "Take other ports in .env or in the environment: PAYMENTS_PORT, PAYMENTS_ADMIN_PORT, SIMULATOR_PORT, PROMETHEUS_PORT, GRAFANA_PORT."
  fi
done

docker compose build
if [[ ! -e .env ]]; then
  # Made by the image, and kept in a volume as well. The file is never overwritten.
  docker compose run --rm -T --no-deps secrets >/dev/null || exit 1
  (umask 077 && docker compose run --rm -T --no-deps secrets show >.env.new && mv .env.new .env)
  echo "wrote .env with the secrets of the stack (git ignores it)"
fi

if ! docker compose up --wait; then
  echo >&2
  named='' created=''
  for service in readable secrets postgres migrate seed kafka simulator service ready prometheus grafana; do
    # The last lines of the first service that ended badly or is not healthy.
    state=$(docker compose ps -a --format '{{.State}} {{.ExitCode}} {{.Health}}' "$service" 2>/dev/null | sed -n 1p)
    case $state in
      # It waited for one that failed, or Docker could not start it.
      "created 0"*) created=${created:-$service}; continue ;;
      "" | "running 0 healthy" | "running 0 " | "running 0" | "exited 0"*) continue ;;
    esac
    echo "The service $service did not get ready ($state). Its last lines:" >&2
    docker compose logs --no-log-prefix --tail 8 "$service" >&2
    named=$service
    break
  done
  if [[ -z $named && -n $created ]]; then
    echo "Docker could not start the service $created. Its error stands above." >&2
  fi
  echo "What each of these means, and the way on: docs/operations/compose.md#when-it-does-not-start" >&2
  exit 1
fi

docker compose run --rm -T --no-deps ready
show() { docker compose run --rm -T --no-deps secrets show "$1"; }
cat <<EOF

Keys (also in .env):
  merchant        $(show PAYMENTS_API_KEY)
  operator        $(show PAYMENTS_OPERATOR_KEY)
  Grafana         admin / $(show GRAFANA_ADMIN_PASSWORD)
EOF
