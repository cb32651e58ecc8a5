package relays

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// missingError is one line that says what this machine lacks for a contender.
type missingError string

func (e missingError) Error() string { return string(e) }

// A Kafka of the bench's own: it stands beside that of `make kafka-up`.
const (
	kafkaHome = ".cache/bench-kafka"
	kafkaPort = "19392"
)

func (s *stack) startKafka(ctx context.Context) error {
	if err := kafkaScript(ctx, "up"); err != nil {
		return errors.Join(err, kafkaScript(context.WithoutCancel(ctx), "down"))
	}
	s.kafka = "127.0.0.1:" + kafkaPort
	s.stopKafka = func() error { return kafkaScript(context.WithoutCancel(ctx), "down") }
	return nil
}

// kafkaScript fails with what the script says last.
func kafkaScript(ctx context.Context, verb string) error {
	c := exec.CommandContext(ctx, "../scripts/kafka.sh", verb) //nolint:gosec // up or down
	c.Env = append(c.Environ(), "PAYMENTS_KAFKA_HOME="+kafkaHome, "PAYMENTS_KAFKA_PORT="+kafkaPort)
	var said bytes.Buffer
	c.Stderr = &said
	err := c.Run()
	if err == nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	return missingError(lastLine(said.Bytes(), err))
}

func lastLine(said []byte, err error) string {
	said = bytes.TrimSpace(said)
	if len(said) == 0 {
		return err.Error()
	}
	return string(said[bytes.LastIndexByte(said, '\n')+1:])
}

// connectLibs is the directory of the jars that debezium/pom.xml names, fetched
// unless they are there.
func connectLibs(ctx context.Context) (string, error) {
	const pom = "relays/debezium/pom.xml"
	libs, err := filepath.Abs("../.cache/debezium/libs")
	if err != nil {
		return "", err
	}
	want, err := os.ReadFile(pom)
	if err != nil {
		return "", err
	}
	stamp := filepath.Join(libs, "pom.xml")                                     // of the jars that are there; written last
	if have, err := os.ReadFile(stamp); err == nil && bytes.Equal(have, want) { //nolint:gosec // below the repository
		return libs, nil
	}
	if _, err := exec.LookPath("mvn"); err != nil {
		return "", missingError("mvn is not in PATH, and it fetches Debezium's jars")
	}
	if err := os.RemoveAll(libs); err != nil {
		return "", err
	}
	c := exec.CommandContext(ctx, "mvn", "-q", "-B", "-Dstyle.color=never", "-f", pom, //nolint:gosec // all of it is ours
		"org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies", "-DoutputDirectory="+libs, "-DincludeScope=runtime")
	said, err := c.CombinedOutput()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		_, why, _ := strings.Cut(string(said), "[ERROR] ")
		why, _, _ = strings.Cut(why, "\n")
		return "", missingError("Maven could not fetch Debezium: " + why)
	}
	return libs, os.WriteFile(stamp, want, 0o600) //nolint:gosec // below the repository
}
