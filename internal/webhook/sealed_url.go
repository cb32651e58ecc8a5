package webhook

import (
	"fmt"
	"strings"

	"payments/internal/secret"
)

// URLData is the associated data that binds the ciphertext of an endpoint's URL to its row and
// column.
func URLData(endpointID string) []byte { return []byte("webhook_endpoints.url|" + endpointID) }

// ShownURL is what anybody may see of an endpoint's URL: scheme, host and port. A token can
// follow them.
func ShownURL(url string) string {
	scheme, rest, _ := strings.Cut(url, "://")
	host, _, _ := strings.Cut(rest, "/")
	host, _, _ = strings.Cut(host, "?")
	return scheme + "://" + host
}

// openURL gives the whole URL. A row from before URLs were sealed has it in the clear.
func openURL(c *secret.Cipher, endpointID, url string, sealed []byte) (string, error) {
	if sealed == nil {
		return url, nil
	}
	plain, err := c.Decrypt(sealed, URLData(endpointID))
	if err != nil {
		return "", fmt.Errorf("open the URL of webhook endpoint %s: %w", endpointID, err)
	}
	return string(plain), nil
}
