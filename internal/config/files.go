package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
)

const (
	// FileSuffix behind a variable's name makes it the name of a file that holds the value.
	FileSuffix = "_FILE"

	prefix       = "PAYMENTS_"
	mostInFile   = 1 << 20
	lineBreaks   = "\r\n"
	readableFile = "must name a readable file"
)

// WithFiles is the environment (os.Environ), in which PAYMENTS_<NAME>_FILE gives
// PAYMENTS_<NAME> the content of a file, without the line breaks at its end. Docker and
// Kubernetes mount secrets that way. The errors repeat no path, since a secret may
// stand there by mistake.
func WithFiles(environ []string) (Lookup, error) {
	values := map[string]string{}
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		if _, known := values[name]; !known { // as os.LookupEnv
			values[name] = value
		}
	}
	var errs []error
	for _, fileVariable := range slices.Sorted(maps.Keys(values)) {
		name, ok := strings.CutSuffix(fileVariable, FileSuffix)
		path := values[fileVariable]
		if !ok || path == "" || len(name) <= len(prefix) || !strings.HasPrefix(name, prefix) {
			continue
		}
		if values[name] != "" {
			errs = append(errs, fmt.Errorf("%s and %s are both set: set one of them", name, fileVariable))
			continue
		}
		value, err := readValue(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %w", fileVariable, err))
			continue
		}
		values[name] = value
	}
	return func(name string) (string, bool) { value, ok := values[name]; return value, ok }, errors.Join(errs...)
}

// readValue has errors that complete a sentence that begins with the variable's name.
func readValue(path string) (string, error) {
	file, err := os.Open(path) //nolint:gosec // the operator's word
	if err != nil {
		return "", unreadable(err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, mostInFile+1))
	if err != nil {
		return "", unreadable(err)
	}
	value := strings.TrimRight(string(content), lineBreaks)
	switch {
	case value == "":
		return "", errors.New("names an empty file")
	case len(content) > mostInFile:
		return "", fmt.Errorf("names a file of more than %d bytes", mostInFile)
	case strings.ContainsRune(value, 0):
		return "", errors.New("names a file that is not text")
	}
	return value, nil
}

// unreadable keeps the system's word for it and drops the path.
func unreadable(err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return fmt.Errorf(readableFile+": %w", errno)
	}
	return errors.New(readableFile)
}
