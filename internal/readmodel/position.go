package readmodel

import (
	"encoding/base64"
	"errors"
	"strconv"
	"strings"

	"payments/internal/payment"
)

// Position is a place in the events of a payment's order: what was committed by
// the request that it was given out for.
type Position struct {
	MerchantID, PaymentID string
	Sequence              int64
}

// ErrToken: the text is not what Token writes.
var ErrToken = errors.New("not a read-after token")

const tokenVersion = "1"

// Token is opaque to clients. It is not signed: it grants nothing, since what can
// be read is decided by the scope alone, and a made-up one costs its maker a wait.
func (p Position) Token() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Join(
		[]string{tokenVersion, p.MerchantID, p.PaymentID, strconv.FormatInt(p.Sequence, 10)}, " ")))
}

// ParseToken is ErrToken for every text that Token would not have written.
func ParseToken(token string) (Position, error) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return Position{}, ErrToken
	}
	parts := strings.Split(string(b), " ")
	if len(parts) != 4 {
		return Position{}, ErrToken
	}
	p := Position{MerchantID: parts[1], PaymentID: parts[2]}
	p.Sequence, err = strconv.ParseInt(parts[3], 10, 64)
	if err != nil || p.Sequence < 1 || !payment.ValidID(payment.PrefixMerchant, p.MerchantID) ||
		!payment.ValidID(payment.PrefixPayment, p.PaymentID) || p.Token() != token { // no secret: who has it may read it
		return Position{}, ErrToken
	}
	return p, nil
}
