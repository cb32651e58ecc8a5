package payment

import "fmt"

// Stock is the number of units of an article that a merchant has on hand.
type Stock struct {
	at              string // in the request
	merchantID, sku string
	onHand          int64
}

func (s Stock) MerchantID() string { return s.merchantID }
func (s Stock) SKU() string        { return s.sku }
func (s Stock) OnHand() int64      { return s.onHand }

// MaxOnHand bounds what can be on hand of one article.
const MaxOnHand int64 = 1_000_000_000

// NewStock names a refused member by pointer, which begins with at. The SKU becomes a
// business key.
func NewStock(at, merchantID, sku string, onHand int64) (Stock, error) {
	var v violations
	if !ValidID(PrefixMerchant, merchantID) {
		v.add(at+"/merchant", "id_invalid", "must be a merchant's id (mer_…)")
	}
	sku, err := BusinessKey(sku, MaxSKU)
	if err != nil {
		v.add(at+"/sku", "sku_invalid", "%v", err)
	}
	if onHand < 0 || onHand > MaxOnHand {
		v.add(at+"/on_hand", "out_of_range", "must be from 0 to %d", MaxOnHand)
	}
	if err := v.err("stock"); err != nil {
		return Stock{}, err
	}
	return Stock{at, merchantID, sku, onHand}, nil
}

// NoRoom refuses it: units that are reserved may come back.
func (s Stock) NoRoom() *Error {
	return &Error{Code: CodeInvalid, Message: "The stock is not valid.", Fields: []FieldError{{
		Pointer: s.at + "/on_hand", Code: "out_of_range",
		Message: fmt.Sprintf("must be at most %d together with the units that are reserved, which may come back", MaxOnHand),
	}}}
}
