package api

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"

	"payments/internal/idempotency"
)

// keyed reads a request that creates something: its key, and its body into v. Of
// a caller who belongs to no merchant the request has none yet.
func (c *call) keyed(v any) (idempotency.Request, error) {
	merchantID, _ := c.scope.Merchant()
	key, err := idempotency.ParseKey(c.r.Header.Values("Idempotency-Key"))
	if err != nil {
		return idempotency.Request{}, err
	}
	body, err := c.body()
	if err != nil {
		return idempotency.Request{}, err
	}
	if err := decode(body, v); err != nil {
		return idempotency.Request{}, err
	}
	fingerprint, err := idempotency.Fingerprint(c.r.Method, c.r.URL.Path, body)
	return idempotency.Request{MerchantID: merchantID, Key: key, Fingerprint: fingerprint}, err
}

// inNameOf is the request with the merchant whose rows it changes. The keys of the
// callers who are not that merchant are their role's own, over all API keys that it
// has had: no key of a merchant has a space.
func (c *call) inNameOf(r idempotency.Request, merchantID string) idempotency.Request {
	if r.MerchantID != merchantID {
		sum := sha256.Sum256([]byte(r.Key)) // with the role it would be longer than a key may be
		r.MerchantID, r.Key = merchantID, string(c.principal.Role)+" "+hex.EncodeToString(sum[:])
	}
	return r
}

// seal makes the answer to keep, encrypted: a payment's shows the customer's
// address, which lies nowhere in the database in the clear. It is kept in the newest
// version, whichever was asked for, and says so.
func (s *server) seal(r idempotency.Request, id, location, readAfter string, v any) (idempotency.Response, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return idempotency.Response{}, fmt.Errorf("encode answer: %w", err)
	}
	sealed, err := s.Cipher.Encrypt(body, idempotency.AnswerData(r, id))
	if err != nil {
		return idempotency.Response{}, fmt.Errorf("seal answer: %w", err)
	}
	header := map[string]string{"Location": location, "Content-Type": "application/json", headerVersion: NewestVersion()}
	if readAfter != "" { // what is not projected can be read at once
		header[headerReadAfter] = readAfter
	}
	return idempotency.Response{ResourceID: id, Status: http.StatusAccepted, Body: sealed, Header: header}, nil
}

// unseal gives the kept answer of the request in the version that is asked for now.
func (s *server) unseal(c *call, r idempotency.Request, resp idempotency.Response, replayed bool) error {
	shown, err := s.Cipher.Decrypt(resp.Body, idempotency.AnswerData(r, resp.ResourceID))
	if err != nil { // it may be from before answers were bound to their request; it can go 31 days later
		shown, err = s.Cipher.Decrypt(resp.Body, idempotency.BodyData(resp.ResourceID))
	}
	if err != nil {
		return fmt.Errorf("open stored answer: %w", err)
	}
	in, err := keptIn(resp.Header)
	if err == nil && in > 0 {
		shown, err = newest(shown, in)
	}
	if err == nil {
		shown, err = c.w.inVersion(shown)
	}
	if err != nil {
		return fmt.Errorf("give stored answer: %w", err)
	}
	s.tellReplay(c, resp, replayed)
	c.w.WriteHeader(resp.Status)
	_, _ = c.w.Write(shown) // an error here is the client's connection
	return nil
}

func (s *server) tellReplay(c *call, resp idempotency.Response, replayed bool) {
	s.debug(c.r.Context(), c.w, "idempotency key decided", "replayed", replayed, "resource", resp.ResourceID)
	for name, value := range resp.Header {
		if name != headerVersion {
			c.w.Header().Set(name, value)
		}
	}
	if replayed {
		c.w.Header().Set("Idempotent-Replayed", "true")
	}
}
