package secret

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
)

// parse drops the causes of its errors: a parser's error can repeat its input.
func parse(encoded string) (*keyset.Handle, error) {
	encoded = strings.TrimSpace(encoded)
	if encoded == "" {
		return nil, errors.New("is empty, and has to be a Tink keyset in base64")
	}
	cleartext, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("is not base64")
	}
	h, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(cleartext)))
	if err != nil {
		return nil, errors.New("is not a Tink keyset in cleartext JSON")
	}
	return h, nil
}

func generate(template *tinkpb.KeyTemplate) (string, error) {
	h, err := keyset.NewHandle(template)
	if err != nil {
		return "", fmt.Errorf("make keyset: %w", err)
	}
	return encode(h)
}

func encode(h *keyset.Handle) (string, error) {
	var b bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewJSONWriter(&b)); err != nil {
		return "", errors.New("write keyset: Tink refused it")
	}
	return base64.StdEncoding.EncodeToString(b.Bytes()), nil
}
