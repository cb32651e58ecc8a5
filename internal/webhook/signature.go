package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of Standard Webhooks.
const (
	headerID        = "webhook-id"
	headerTimestamp = "webhook-timestamp"
	headerSignature = "webhook-signature"
)

const (
	secretPrefix = "whsec_"
	secretBytes  = 32 // the specification asks for 24 to 64
)

// newSecret needs a cryptographically strong source.
func newSecret(random io.Reader) (string, error) {
	var b [secretBytes]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("no randomness for a webhook's secret: %w", err)
	}
	return secretPrefix + base64.StdEncoding.EncodeToString(b[:]), nil
}

// SecretData is the associated data that binds a secret's ciphertext to its row
// and column.
func SecretData(endpointID string, number int) []byte {
	return []byte("webhook_secrets.ciphertext|" + endpointID + "|" + strconv.Itoa(number))
}

// sign sets the headers of an attempt, with a signature for each live secret.
func sign(h http.Header, id string, at time.Time, body []byte, secrets []string) error {
	if len(secrets) == 0 {
		return errors.New("there is no secret to sign with")
	}
	timestamp := strconv.FormatInt(at.Unix(), 10)
	signatures := make([]string, len(secrets))
	for i, s := range secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, secretPrefix))
		if err != nil {
			return errors.New("a webhook's secret is not base64") // the decoder's own error repeats a part of it
		}
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + timestamp + "."))
		mac.Write(body)
		signatures[i] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	h.Set(headerID, id)
	h.Set(headerTimestamp, timestamp)
	h.Set(headerSignature, strings.Join(signatures, " "))
	return nil
}
