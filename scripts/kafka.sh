#!/usr/bin/env bash
# A real Apache Kafka (KRaft, one node) on this machine, from the jars of scripts/kafka/pom.xml.
#
#   up      fetch what is missing, start, print PAYMENTS_TEST_KAFKA_BROKERS=… as the last line
#   down    stop and remove the data; the fetched jars stay
#   stop    stop and keep the data
#   start   continue with the data
#   status  say whether it answers; exit 1 if it does not
#
# Exit 3: Maven Central could not be reached. PAYMENTS_KAFKA_HOME (default .cache/kafka of the
# repository) holds everything; PAYMENTS_KAFKA_PORT (default 19092) is the listener's, the port
# after it the controller's. Needs Java 17 and, for the jars, Maven.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
home=${PAYMENTS_KAFKA_HOME:-.cache/kafka}
port=${PAYMENTS_KAFKA_PORT:-19092}
start_within=60
stop_within=40

if ! [[ $port =~ ^[0-9]{1,5}$ ]] || ((10#$port < 1 || 10#$port > 65534)); then
  echo "PAYMENTS_KAFKA_PORT is not a port from 1 to 65534: $port" >&2
  exit 2
fi
mkdir -p "$home"
home=$(cd "$home" && pwd)
pid_file=$home/pid
log=$home/kafka.log

fail() {
  echo "$1" >&2
  exit "${2:-1}"
}

# running prints the pid of our broker: the number may long be another process's.
running() {
  local pid command
  pid=$(cat "$pid_file" 2>/dev/null) || return 1
  [[ $pid =~ ^[0-9]+$ ]] && kill -0 "$pid" 2>/dev/null || return 1
  if [[ -d /proc/$pid ]]; then
    command=$(tr '\0' ' ' <"/proc/$pid/cmdline") 2>/dev/null || return 1
  else
    command=$(ps -p "$pid" -o command=) || return 1
  fi
  [[ $command == *"$home/server.properties"* ]] || return 1
  echo "$pid"
}

# answers sends an ApiVersions request (key 18, version 0, no client id) and waits for a byte.
answers() {
  (
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf '\0\0\0\012\0\022\0\0\0\0\0\001\377\377' >&3
    LC_ALL=C read -r -t 2 -n 1 -u 3
  ) 2>/dev/null
}

fetch() {
  local sum out code=0
  sum=$(cksum <scripts/kafka/pom.xml)
  [[ $(cat "$home/libs/.pom" 2>/dev/null) == "$sum" ]] && return
  command -v mvn >/dev/null || fail "Maven is missing: mvn is not in PATH, and it fetches Kafka's jars"
  echo "fetching Apache Kafka from Maven Central"
  rm -rf "$home/libs" "$home/libs.new"
  out=$home/maven.log
  mvn -q -B -Dstyle.color=never -f scripts/kafka/pom.xml org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies \
    -DoutputDirectory="$home/libs.new" -DincludeScope=runtime >"$out" 2>&1 || code=$?
  if ((code != 0)); then
    if grep -q 'Could not find artifact' "$out"; then
      fail "Maven Central has not what scripts/kafka/pom.xml names: $(grep -o 'Could not find artifact [^ ]*' "$out" | head -n 1)"
    fi
    fail "Maven Central could not be reached for Kafka's jars: $(grep -o -m 1 'ERROR\] .*' "$out" | cut -c 8-300)" 3
  fi
  echo "$sum" >"$home/libs.new/.pom"
  mv "$home/libs.new" "$home/libs"
}

configure() {
  cat >"$home/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
log.dirs=$home/data
num.partitions=8
auto.create.topics.enable=true
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
PROPERTIES
}

# java_run replaces the shell it runs in, so that a job's pid is java's.
java_run() {
  exec java -Xmx512m -Dlog4j2.level=INFO -cp "$home/libs/*" "$@"
}

start() {
  local pid deadline
  if running >/dev/null; then
    answers || fail "Kafka runs, but does not answer on 127.0.0.1:$port; see $log"
    return
  fi
  [[ -f $home/libs/.pom ]] || fail "Kafka is not here yet: run scripts/kafka.sh up"
  command -v java >/dev/null || fail "Java is missing: java is not in PATH, and Kafka needs version 17"
  answers && fail "port $port of 127.0.0.1 is taken by another broker; set PAYMENTS_KAFKA_PORT"
  configure
  if [[ ! -f $home/data/meta.properties ]]; then
    rm -rf "$home/data"
    (java_run kafka.tools.StorageTool format -t "$(java_run kafka.tools.StorageTool random-uuid 2>/dev/null | tail -n 1)" \
      -c "$home/server.properties") >"$home/format.log" 2>&1 || fail "Kafka's storage could not be formatted: $(tail -n 3 "$home/format.log")"
  fi
  # A job of its own group, so that Ctrl-C at the caller does not reach it.
  set -m
  java_run kafka.Kafka "$home/server.properties" >"$log" 2>&1 </dev/null &
  pid=$!
  set +m
  echo "$pid" >"$pid_file"
  disown "$pid"
  deadline=$((SECONDS + start_within))
  until grep -q 'Kafka Server started' "$log" && answers; do
    kill -0 "$pid" 2>/dev/null || fail "Kafka ended while starting: $(grep -m 1 -E 'ERROR|FATAL|Exception' "$log" || tail -n 1 "$log"); see $log"
    ((SECONDS < deadline)) || fail "Kafka did not answer on 127.0.0.1:$port within $start_within s; see $log"
    sleep 0.2
  done
}

stop() {
  local pid deadline
  if pid=$(running); then
    kill -TERM "$pid" 2>/dev/null || true
    deadline=$((SECONDS + stop_within))
    while running >/dev/null; do
      if ((SECONDS >= deadline)); then
        echo "Kafka did not stop within $stop_within s and is killed; see $log" >&2
        kill -KILL "$pid" 2>/dev/null || true
        deadline=$((SECONDS + stop_within))
      fi
      sleep 0.1
    done
  fi
  rm -f "$pid_file"
}

case ${1:-} in
  up)
    fetch
    start
    echo "PAYMENTS_TEST_KAFKA_BROKERS=127.0.0.1:$port"
    ;;
  down)
    stop
    rm -rf "$home/data" "$home/server.properties" "$home"/*.log
    ;;
  stop) stop ;;
  start) start ;;
  status)
    if pid=$(running) && answers; then
      echo "Kafka answers on 127.0.0.1:$port (pid $pid)"
    else
      fail "Kafka does not run on 127.0.0.1:$port"
    fi
    ;;
  *) fail "usage: scripts/kafka.sh up|down|stop|start|status" 2 ;;
esac
