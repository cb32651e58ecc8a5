package payment

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Event is a CloudEvent in Kafka's binary mode; docs/events says what it holds.
type Event struct {
	ID       string
	Type     EventType // of a later version of this service, it may be none of EventTypes
	Sequence int64     // among the order's: 1, 2, 3 …
	At       time.Time
	Data     EventData
}

// maxHeader is the length of a header that names something, in characters.
const maxHeader = 255

// ReadEvent tolerates what a later version may add: members, and whole types. What
// each type's data has to hold is the reader's to ask.
func ReadEvent(headers map[string]string, value []byte) (e Event, err error) {
	e.ID, e.Type = headers["ce_id"], EventType(headers["ce_type"])
	if e.Sequence, err = strconv.ParseInt(headers["ce_sequence"], 10, 64); err != nil || e.Sequence < 1 {
		return e, errors.New("the header ce_sequence is not a positive integer")
	}
	if e.At, err = time.Parse(time.RFC3339Nano, headers["ce_time"]); err != nil {
		return e, errors.New("the header ce_time is not an RFC 3339 time")
	}
	if validText(e.ID, maxHeader) != nil {
		return e, errors.New("the header ce_id is missing, or is no text that can be kept")
	}
	if validText(string(e.Type), maxHeader) != nil {
		return e, errors.New("the header ce_type is missing, or is no text that can be kept")
	}
	if err := json.Unmarshal(value, &e.Data); err != nil {
		return e, fmt.Errorf("the value is not an event's data: %w", err)
	}
	if !ValidID(PrefixMerchant, e.Data.MerchantID) || !ValidID(PrefixOrder, e.Data.OrderID) || !ValidID(PrefixPayment, e.Data.PaymentID) {
		return e, errors.New("the data has no valid merchant_id, order_id and payment_id")
	}
	return e, nil
}
