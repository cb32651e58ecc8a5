package inbox

import "errors"

var (
	errNoID   = errors.New("the message has no usable " + HeaderID + " header")
	errBehind = errors.New("waits behind an earlier message of its key")
)

type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// Permanent marks an error as one that no later attempt can mend. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanentError{err}
}

func permanent(err error) bool {
	_, ok := errors.AsType[permanentError](err)
	return ok
}
